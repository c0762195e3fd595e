"""`mllm3rec compile`: tune demonstrations and instructions on dev shoppers, check the winner, freeze it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, get_args

import typer
from rich.table import Table

from evaluate.protocol.cases import CaseFile, read_cases
from evaluate.ranker_factory import askable
from mllm3rec.cli.console import Ticker, dollars, emit, figure, out, progress, say
from mllm3rec.cli.evaluate import CasesFile, DatasetOption, dataset_of, safe_histories
from mllm3rec.cli.settings import (
    BudgetUsd,
    Head,
    Json,
    MaxCalls,
    ModelOption,
    ModelOptions,
    Preset,
    RoleOption,
    SchemaFile,
    chosen_encoder,
    model_names,
    open_ledger,
    read_schema,
    versions,
    workshop,
)
from optimize.artifact import SEARCH_FOLDER, ArtifactManifest
from optimize.candidates import Recipe
from optimize.compiler import LEDGER, REPORT, Compiler
from optimize.consistency import Similarity, keyword_overlap, schema_cooccurrence, semantic_similarity, weighted
from optimize.forecast import Phase, in_all
from optimize.objective import ObjectiveWeights, UserScore
from optimize.search import Attempt
from optimize.settings import CompileSettings
from optimize.space import MODULES, Space
from programs.lm.ledger import Ledger
from programs.lm.roles import ROLE_NAMES, RoleConfig, RoleName, Roles
from programs.prior.encoders import Encoder
from programs.program import DEFAULT_WEIGHT, PROGRAMS, Fusion
from programs.runtime.errors import InputError

SIMILARITIES = ("schema", "keywords", "semantic", "mixed")
PROPOSAL_TOKENS = 700
ASSIGNMENT = re.compile(r"(mope|mote|mar|judge)=(.+)")


def compile_program(
    cases: CasesFile,
    directory: Annotated[Path, typer.Option("--out", help="The artifact; the same command resumes it.")],
    dataset: DatasetOption = None,
    optimizer: Annotated[str, typer.Option(help="study, or DSPy's: mipro, gepa, random-search, labeled.")] = "study",
    trials: Annotated[int, typer.Option(min=1, help="Programs to try, the uncompiled one included.")] = 12,
    family: Annotated[list[str] | None, typer.Option(help="Ranking family; several are searched over.")] = None,
    module: Annotated[list[str] | None, typer.Option(help="Module to tune: mope, mote, mar. Default: all.")] = None,
    demo_sets: Annotated[int, typer.Option(min=0, help="Demonstration sets to bootstrap per module.")] = 2,
    max_demos: Annotated[int, typer.Option(min=1, help="Demonstrations in a set.")] = 3,
    wordings: Annotated[int, typer.Option(min=0, help="Instructions to propose per predictor.")] = 2,
    ndcg: Annotated[float, typer.Option(min=0, help="Weight of NDCG of the order the shopper gets.")] = 0.4,
    mar_ndcg: Annotated[float, typer.Option(min=0, help="Weight of NDCG of MAR's scores alone.")] = 0.3,
    hit: Annotated[float, typer.Option(min=0, help="Weight of HR@5.")] = 0.1,
    coherence: Annotated[float, typer.Option(min=0, help="Weight of profile coherence (eq. 5).")] = 0.2,
    similarity: Annotated[str, typer.Option(help=f"Sim of eq. 5: {', '.join(SIMILARITIES)}.")] = "schema",
    interactions: Annotated[int, typer.Option(min=0, help="Last interactions profiled alone for eq. 5.")] = 3,
    held_out: Annotated[
        float, typer.Option(min=0.05, max=0.9, help="Share of the dev shoppers the winner is checked on.")
    ] = 0.3,
    pareto: Annotated[bool, typer.Option("--pareto", help="Quality against cost, instead of quality alone.")] = False,
    weight: Annotated[
        list[float] | None, typer.Option(min=0, max=1, help="Fusion weight; several are searched over.")
    ] = None,
    backend: Annotated[list[str] | None, typer.Option(help="ROLE=MODEL to search over besides the role's own.")] = None,
    temperature: Annotated[list[str] | None, typer.Option(help="ROLE=T to search over besides the role's own.")] = None,
    proposer: Annotated[str | None, typer.Option(help="Model that writes instructions; default: MAR's.")] = None,
    preset: Preset = "local",
    model: ModelOption = None,
    mope: RoleOption = None,
    mote: RoleOption = None,
    mar: RoleOption = None,
    head: Head = None,
    schema: SchemaFile = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides every choice of the search.")] = 0,
    workers: Annotated[int, typer.Option(min=1, help="Shoppers scored at the same time.")] = 1,
    budget_usd: BudgetUsd = None,
    max_calls: MaxCalls = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Measure a few calls, forecast the rest, stop.")] = False,
    as_json: Json = False,
) -> None:
    """Tune the prompts of MOPE, MOTE and MAR on dev cases, check the winner on unseen ones, and freeze it."""
    roles = ModelOptions(preset, model, mope, mote, mar).roles()
    case_file = read_cases(cases)
    if dry_run and optimizer != "study":
        raise InputError(f"--dry-run forecasts a study only; bound {optimizer} with --max-calls or --budget-usd")
    settings = CompileSettings(
        optimizer=_one_of("--optimizer", optimizer, get_args(CompileSettings.model_fields["optimizer"].annotation)),
        modules=tuple(_one_of("--module", one, MODULES) for one in module or MODULES),
        trials=trials,
        seed=seed,
        pareto=pareto,
        recipe=Recipe(demo_sets=demo_sets, max_demos=max_demos, wordings=wordings, seed=seed),
        space=Space(
            families=tuple(_one_of("--family", one, tuple(PROGRAMS)) for one in family or ["listwise"]),
            weights=tuple(weight or [DEFAULT_WEIGHT]),
            models={role: (roles.of(role).model, *some) for role, some in _assigned("--backend", backend).items()},
            temperatures=_temperatures(roles, temperature),
        ),
        weights=ObjectiveWeights(ndcg=ndcg, mar=mar_ndcg, hit=hit, coherence=coherence),
        similarity=_one_of("--similarity", similarity, SIMILARITIES),
        interactions=interactions,
        held_out=held_out,
        roles=roles,
        proposer=proposing(roles, proposer),
        models=model_names(roles),
        encoder=chosen_encoder(),
        motivations=read_schema(schema),
        head=head,
        cases_sha256=case_file.sha256,
        versions=versions(),
    )
    ledger = open_ledger(directory / SEARCH_FOLDER / LEDGER, budget_usd, max_calls)
    with Watching(ledger) as watcher:
        compiler = build_compiler(directory, settings, case_file, dataset, ledger, watcher, workers)
        if dry_run:
            phases = compiler.forecast()
        else:
            manifest = compiler.run()
    ledger.close()
    if dry_run:
        show_forecast(phases, as_json)
        return
    if as_json:
        emit({**manifest.model_dump(mode="json"), "artifact": str(directory)})
        return
    show_manifest(manifest)
    out.print(f"written: {directory} (plots: {directory / SEARCH_FOLDER / REPORT})", markup=False)


def proposing(roles: Roles, model: str | None = None) -> RoleConfig:
    """Who writes instructions: MAR's model, or another; with room for a whole instruction."""
    config = roles.with_models(mar=model).mar
    return config.model_copy(update={"terse": False, "max_tokens": max(PROPOSAL_TOKENS, config.max_tokens)})


def build_compiler(
    directory: Path,
    settings: CompileSettings,
    case_file: CaseFile,
    dataset: str | None,
    ledger: Ledger,
    watcher: Watching,
    workers: int = 1,
) -> Compiler:
    """A compiler on the data its cases were drawn from; refuses roles that cannot be asked."""
    data = dataset_of(case_file, dataset)
    histories = safe_histories(case_file, data)
    shop = workshop(data, histories, settings.roles, ledger, settings.motivations, Fusion(head=settings.head))
    parts = shop.parts()
    for family in settings.space.families:
        askable(PROGRAMS[family](parts))
    return Compiler(
        directory, settings, case_file, parts, similarity_of(settings.similarity, shop.encoder), watcher, workers
    )


def similarity_of(name: str, encoder: Encoder) -> Similarity:
    """Sim of eq. 5 by its name; `mixed` is the mean of the three."""
    semantic = semantic_similarity(encoder)
    mixed = weighted([(1.0, schema_cooccurrence), (1.0, keyword_overlap), (1.0, semantic)])
    return dict(zip(SIMILARITIES, (schema_cooccurrence, keyword_overlap, semantic, mixed), strict=True))[name]


class Watching(ExitStack):
    """Shows a compile on the terminal: part, shoppers scored, rate, calls, dollars, trial and best score so far."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__()
        self._ledger = ledger
        self._bars = ExitStack()
        self._ticker: Ticker | None = None
        self.callback(self._bars.close)

    def step(self, what: str, total: int = 0) -> None:
        """See `optimize.compiler.Watcher`."""
        self._bars.close()
        self._ticker = self._bars.enter_context(progress(what, total, self._ledger)) if total else None
        if not total:
            say(what)

    def score(self, score: UserScore) -> None:
        """See `optimize.compiler.Watcher`."""
        if self._ticker is not None:
            self._ticker.advance()

    def attempt(self, attempt: Attempt, best: Attempt | None) -> None:
        """See `optimize.compiler.Watcher`."""
        total = self._ledger.total()
        leader = "" if best is None else f"; best so far {best.score:.4f} (trial {best.number})"
        outcome = f"{attempt.score:.4f}" if attempt.scores else attempt.error or "no score"
        say(
            f"trial {attempt.number}: {attempt.state.lower()}, {outcome} after {len(attempt.scores)} shoppers{leader}; "
            f"{total.calls} calls, {dollars(total.usd)}"
        )


def show_manifest(manifest: ArtifactManifest) -> None:
    """Verdict, search and spending of an artifact, for a person."""
    verdict = manifest.verdict
    table = Table(title=f"{manifest.optimizer}: held-out dev shoppers", title_justify="left")
    for column in ("part", "before [95% CI]", "after [95% CI]", "difference, paired", "n"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for part, difference in verdict.difference.items():
        table.add_row(
            part, figure(verdict.before[part]), figure(verdict.after[part]), figure(difference), str(difference.n)
        )
    out.print(table)
    out.print(
        f"over the {len(manifest.data.searched)} shoppers of the search: "
        f"{manifest.searched['before']:.4f} before, {manifest.searched['after']:.4f} after "
        f"(trial {manifest.trial} of {manifest.trials})"
    )
    style = {"better": "green", "not clearly better": "yellow", "not better": "red"}[verdict.judgement]
    out.print(f"on shoppers it had not seen, the compiled program is [{style}]{verdict.judgement}[/] than the original")
    spending = Table(title="Spent", title_justify="left")
    for column in ("phase", "calls", "stored", "tokens in", "tokens out", "dollars", "seconds"):
        spending.add_column(column, justify="left" if column == "phase" else "right")
    for phase, usage in manifest.spent.items():
        spending.add_row(
            phase or "-",
            str(usage.calls),
            str(usage.cache_hits),
            str(usage.tokens_in),
            str(usage.tokens_out),
            dollars(usage.usd),
            f"{usage.seconds:.0f}",
        )
    out.print(spending)


def show_forecast(phases: Sequence[Phase], as_json: bool) -> None:
    """Upper bounds by phase."""
    total = in_all(phases)
    if as_json:
        emit({"phases": [p.model_dump() for p in phases], "in_all": total.model_dump()})
        return
    table = Table(title="Forecast, at most", title_justify="left")
    for column in ("phase", "calls", "tokens", "dollars", "minutes, one at a time"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    for phase in (*phases, total):
        minutes = "-" if phase.seconds is None else f"{phase.seconds / 60:.1f}"
        table.add_row(phase.name, str(phase.calls), str(phase.tokens), dollars(phase.usd), minutes)
    out.print(table)
    out.print("Answers in the store, pruned trials and prompts that trials share make it less.")


def _one_of(option: str, value: str, known: Sequence[str]) -> Any:
    if value not in known:
        raise InputError(f"{option} {value!r}: choose one of {', '.join(known)}")
    return value


def _assigned(option: str, values: Sequence[str] | None) -> dict[RoleName, list[str]]:
    found: dict[RoleName, list[str]] = {}
    for value in values or ():
        match = ASSIGNMENT.fullmatch(value)
        if match is None:
            raise InputError(f"{option} {value!r}: write ROLE=VALUE, with a role of {', '.join(ROLE_NAMES)}")
        role: Any = match[1]
        found.setdefault(role, []).append(match[2])
    return found


def _temperatures(roles: Roles, values: Sequence[str] | None) -> dict[RoleName, tuple[float, ...]]:
    try:
        asked = {role: [float(one) for one in some] for role, some in _assigned("--temperature", values).items()}
    except ValueError as error:
        raise InputError(f"--temperature: {error}") from None
    outside = [one for some in asked.values() for one in some if not 0 <= one <= 2]
    if outside:
        raise InputError(f"--temperature {outside[0]:g}: must lie between 0 and 2")
    return {role: (roles.of(role).temperature or 0.0, *some) for role, some in asked.items()}
