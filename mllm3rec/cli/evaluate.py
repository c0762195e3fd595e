"""`mllm3rec evaluate`: run a ranker over frozen cases, resumably, and say what it is worth."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from evaluate.baselines import TRAINED
from evaluate.data.dataset import Dataset
from evaluate.data.demo.store import planted_motivations
from evaluate.data.load import load_dataset
from evaluate.protocol.cases import CaseFile, check_dataset, read_cases
from evaluate.protocol.leakage import find_leaks, refuse_leaks
from evaluate.protocol.splits import split_dataset
from evaluate.ranker_factory import BASELINES
from evaluate.runs.journal import Journal, RunManifest
from evaluate.runs.planted_recovery import Recovery, recovery
from evaluate.runs.run import RunStatus, run_cases
from evaluate.runs.run_metrics import TARGETS, RunMetrics, against_run, run_metrics
from evaluate.stats.intervals import Difference
from mllm3rec.cli.console import emit, err, figure, out, progress, recovery_line, results_table, say, usage_table
from mllm3rec.cli.settings import (
    BudgetUsd,
    Head,
    Json,
    LedgerFile,
    MaxCalls,
    ModelOption,
    ModelOptions,
    Preset,
    RoleOption,
    SchemaFile,
    Weight,
    configuration,
    encoder_setting,
    open_ledger,
    versions,
    workshop,
)
from mllm3rec.resolve import choose
from optimize.artifact import ArtifactManifest
from programs.lm.backends import UnparsableError
from programs.lm.ledger import Ledger
from programs.mote import MOTE
from programs.program import DEFAULT_WEIGHT, Fusion
from programs.ranker import Ranker
from programs.runtime.atomic import write_atomically
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.interrupts import map_in_threads
from signatures.rows import Ranking, Status
from signatures.types import Traits

CasesFile = Annotated[Path, typer.Argument(help="A file written by `mllm3rec cases`.")]
DatasetOption = Annotated[str | None, typer.Option("--dataset", help="Where the data lies, if not where it was drawn.")]
LEDGER, METRICS = "ledger.jsonl", "metrics.json"


def evaluate(
    cases: CasesFile,
    ranker: Annotated[str, typer.Option(help="A baseline, a program or an artifact; an unknown name lists them.")],
    directory: Annotated[Path, typer.Option("--out", help="Run directory; the same command resumes it.")],
    dataset: DatasetOption = None,
    preset: Preset = "local",
    model: ModelOption = None,
    mope: RoleOption = None,
    mote: RoleOption = None,
    mar: RoleOption = None,
    judge: RoleOption = None,
    weight: Weight = DEFAULT_WEIGHT,
    head: Head = None,
    explain: Annotated[int, typer.Option(min=0, help="Explain and re-check the first K items.")] = 0,
    check: Annotated[bool, typer.Option(help="Have the judge re-check reasons.")] = True,
    schema: SchemaFile = None,
    seed: Annotated[int, typer.Option(min=0, help="Training seed of a trained baseline.")] = 0,
    against: Annotated[Path | None, typer.Option(help="A finished run on the same cases to compare with.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Users ranked at the same time.")] = 1,
    budget_usd: BudgetUsd = None,
    max_calls: MaxCalls = None,
    as_json: Json = False,
) -> None:
    """Rank every case and report HR@K and NDCG@K with intervals. Exit code 1 while cases are unresolved."""
    options = ModelOptions(preset, model, mope, mote, mar, judge)
    chosen = choose(ranker, options, Fusion(weight=weight, head=head), schema)
    case_file = read_cases(cases)
    baseline = ranker in BASELINES or ranker in TRAINED
    settings: dict[str, Any] = {}
    if ranker in TRAINED:
        settings = {"seed": seed, "settings": TRAINED[ranker]().model_dump(mode="json")}
    elif not baseline:
        settings = configuration(chosen.roles, chosen.fusion, chosen.schema, explain, check)
    if chosen.manifest is not None:
        refuse_known_shoppers(chosen.manifest, case_file)
        settings |= {"artifact": chosen.manifest.sha256}
    ledger = open_ledger(None if baseline else directory / LEDGER, budget_usd, max_calls)
    data = dataset_of(case_file, dataset)
    histories = safe_histories(case_file, data)
    shop = workshop(data, histories, chosen.roles, ledger, chosen.schema, chosen.fusion, explain, check)
    finished = run_into(directory, chosen.name, chosen.build(shop, seed), settings, case_file, ledger, workers)
    compared = {} if against is None else against_run(directory, against)
    _show(finished, directory, case_file, as_json, compared)
    for metric, difference in compared.items() if not as_json else ():
        out.print(f"{metric}: {figure(difference)} against {against} (paired, n={difference.n})", markup=False)
    if not as_json and not baseline:
        out.print(usage_table(ledger.by_role()))
    ledger.close()
    raise typer.Exit(0 if finished.outcome.complete else 1)


@dataclass(frozen=True)
class Finished:
    """What came of a run.

    Attributes:
        recovered: How well profiles recover the planted motivations, where the truth is known (the demo store).
    """

    results: RunMetrics
    outcome: RunStatus
    recovered: Recovery | None


def refuse_known_shoppers(manifest: ArtifactManifest, case_file: CaseFile) -> None:
    """Refuse to evaluate a compiled program on shoppers it was compiled on.

    Raises:
        InputError: naming one of them.
    """
    if manifest.data.dataset_sha256 != case_file.protocol.dataset_sha256:
        return
    seen = {*manifest.data.searched, *manifest.data.held_out} & {case.user_id for case in case_file.cases}
    if seen:
        raise InputError(
            f"{len(seen)} of these shoppers ({min(seen)!r}, ...) were used to compile the program: its figures on them "
            "say nothing; draw cases with `--part test`"
        )


def run_into(
    directory: Path,
    ranker: str,
    built: Ranker,
    settings: dict[str, Any],
    case_file: CaseFile,
    ledger: Ledger,
    workers: int = 1,
) -> Finished:
    """Run a ranker into a run directory, or finish the run that is there, and write `metrics.json` beside it.

    Args:
        ranker: The name results give it.
        settings: What decides the rankings besides the cases; a directory of other settings is refused.
    """
    manifest = RunManifest(
        cases_sha256=case_file.sha256,
        ranker=ranker,
        configuration=settings | encoder_setting(),
        versions=versions(),
    )
    with Journal.open(directory, manifest) as journal:
        done = len(journal.resolved())
        if done:
            say(f"resuming {directory}: {done} of {len(case_file.cases)} users are there already")
        with progress(f"{ranker}: users", len(case_file.cases), ledger) as ticker:
            ticker.to(done, len(case_file.cases))

            def on_row(row: Ranking) -> None:
                ticker.advance()
                if row.status is not Status.OK:
                    say(f"user {row.user_id}: {row.status}: {row.error}")

            outcome = run_cases(case_file.cases, built, journal, ledger, workers, on_row)
        rows = journal.rows()
    if outcome.stopped:
        say(f"stopped: {outcome.stopped}; {outcome.left} users left; the same command goes on from there")
        if all(row.status is Status.FAILED for row in rows.values()):
            raise BudgetExceededError(outcome.stopped)
    targets = {case.user_id: case.target for case in case_file.cases}
    write_atomically(directory / TARGETS, json.dumps(targets).encode() + b"\n")
    figures = run_metrics(ranker, case_file.cases, rows, spent=ledger.total())
    write_atomically(directory / METRICS, figures.model_dump_json(indent=2).encode() + b"\n")
    return Finished(figures, outcome, _recovery(case_file, rows))


def distill(
    cases: CasesFile,
    dataset: DatasetOption = None,
    preset: Preset = "local",
    mote: RoleOption = None,
    workers: Annotated[int, typer.Option(min=1, help="Products distilled at the same time.")] = 1,
    calls: LedgerFile = None,
    budget_usd: BudgetUsd = None,
    max_calls: MaxCalls = None,
    as_json: Json = False,
) -> None:
    """Distil the traits of every candidate into the trait store. Exit code 1 if some answers could not be read."""
    case_file = read_cases(cases)
    ledger = open_ledger(calls, budget_usd, max_calls)
    data = dataset_of(case_file, dataset)
    shop = workshop(data, {}, ModelOptions(preset, mote=mote).roles(), ledger)
    module = MOTE(shop.backends_of(), shop.traits_of())
    wanted = list(dict.fromkeys(item_id for case in case_file.cases for item_id in case.candidates))
    phrases, refused, unreadable = 0, 0, 0

    def distilled(item_id: str) -> Traits | None:
        try:
            traits: Traits = module(item=shop.dataset.item(item_id)).traits
        except UnparsableError:
            return None
        return traits

    with progress("products distilled", len(wanted), ledger) as ticker:
        for traits in map_in_threads(distilled, wanted, workers, ledger.stop):
            if traits is None:
                unreadable += 1
            else:
                phrases += len(traits.phrases)
                refused += len(traits.dropped)
            ticker.advance()
    facts = {"products": len(wanted), "traits": phrases, "refused": refused, "unreadable": unreadable}
    if as_json:
        emit({**facts, "calls": ledger.total().calls})
    else:
        out.print(", ".join(f"{count} {what}" for what, count in facts.items()))
        out.print(usage_table(ledger.by_role()))
    raise typer.Exit(1 if unreadable else 0)


def dataset_of(case_file: CaseFile, elsewhere: str | None) -> Dataset:
    """The data a cases file was drawn from, checked to be the same."""
    data = load_dataset(elsewhere or case_file.protocol.source)
    check_dataset(case_file, data)
    return data


def safe_histories(case_file: CaseFile, data: Dataset) -> Mapping[str, Sequence[str]]:
    """What fits may see under the protocol of the cases, checked to hold nothing of what is to be found.

    Raises:
        InputError: naming users whose held-out interactions would reach a fit.
    """
    histories = split_dataset(data, case_file.protocol).training
    refuse_leaks(find_leaks(case_file.cases, data, histories, case_file.protocol.setting))
    return histories


def _recovery(case_file: CaseFile, rows: Mapping[str, Ranking]) -> Recovery | None:
    if case_file.protocol.source != "demo":
        return None
    profiles = {user: row.profile for user, row in rows.items() if row.profile is not None}
    truth = planted_motivations()
    return recovery(profiles, {user: truth[user] for user in profiles}) if profiles else None


def _show(
    finished: Finished, directory: Path, case_file: CaseFile, as_json: bool, compared: Mapping[str, Difference]
) -> None:
    figures, recovered = finished.results, finished.recovered
    if as_json:
        payload = figures.model_dump(mode="json")
        recovery_facts = None if recovered is None else asdict(recovered)
        more = {"recovery": recovery_facts, "complete": finished.outcome.complete, "run": str(directory)}
        emit({**payload, **more, "against": {name: found.model_dump() for name, found in compared.items()}})
        return
    protocol = case_file.protocol
    title = (
        f"{protocol.dataset}, {protocol.setting}, {protocol.part} users, target {protocol.target}, "
        f"{protocol.negatives} {protocol.sampling} negatives"
    )
    out.print(results_table(figures, title))
    for metric, difference in figures.against_prior.items():
        out.print(f"{metric}: {figure(difference)} against the prior alone (paired, n={difference.n})")
    if figures.score_sources:
        sources = ", ".join(f"{source} for {count} users" for source, count in figures.score_sources.items())
        out.print(
            f"MAR scores from {sources}; unparsable answers {figures.unparsable_answers:.2%}; "
            f"per user {figures.appended:.1f} candidates left out, {figures.dropped:.1f} labels dropped; "
            f"{figures.refused_traits:.1%} of trait phrases refused"
        )
    if recovered is not None:
        out.print(recovery_line(recovered))
    if figures.unresolved:
        limits = "; ".join(f"{name} between {b.low:.3f} and {b.high:.3f}" for name, b in figures.bounds.items())
        out.print(f"[yellow]{figures.unresolved} users unresolved[/]: {limits}")
    if figures.audit is not None and figures.audit.impossible:
        err.print(f"[red]audit:[/] {'; '.join(map(str, figures.audit.violations))}")
    out.print(f"written: {directory}", markup=False)
