"""Compile a program: tune demos and instructions on dev users, and save the checked winner as an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

from evaluate.protocol.cases import Cases
from evaluate.ranker_choice import RankerChoice, named_models, options_read_by, refuse_ignored
from evaluate.ranker_factory import RankerFactory, askable
from evaluate.runs.directory import LEDGER
from mllm3rec.api.compile_options import (
    CompileOptions,
    compile_settings,
    given_models,
    models_of,
    refuse_unread,
    roles_of,
)
from mllm3rec.api.options import budget_of
from mllm3rec.api.program import Program, load_artifact
from mllm3rec.api.sessions import closing_calls, read_cases, tell_list_warnings
from optimize.artifact import SEARCH_FOLDER, is_artifact
from optimize.ask_ahead import AskAhead
from optimize.compiler import PLAN, Compiler
from optimize.consistency import similarity_named
from optimize.event_watcher import EventWatcher
from optimize.finetuning import FineTuning
from optimize.forecast import Phase, check_unpaid, search_unpaid
from optimize.resolve import ArtifactChoice, resolve_ranker
from optimize.settings import defaults_of_compile, prior_of_compile, tuning_of_compile
from optimize.start import Start
from programs.batch.run import BatchRun
from programs.batch.via import Via, batch_run
from programs.chat_rec import RERANKING, fusion_of
from programs.lm.ledger import Budget, Ledger
from programs.lm.roles import ROLE_NAMES
from programs.prior.choice import NEWEST, prior_name
from programs.program import PROGRAMS, Fusion
from programs.runtime.errors import InputError
from programs.runtime.events import Note, OnEvent, ignore

Compilable = Program | str | Path | Sequence[str]
"""A `Program`, the folder of an artifact, or one or more names of programs."""


def compile_program(
    cases: Cases | str | Path,
    program: Compilable = "listwise",
    *,
    out: str | Path,
    trials: int = 12,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    workers: int = 1,
    retry_unparsable: bool = False,
    via: Via = "calls",
    on_event: OnEvent = ignore,
    **options: Unpack[CompileOptions],
) -> Program:
    """Tune the prompts of MOPE, MOTE and MAR. The same call resumes a stopped compile.

    Args:
        cases: Cases of dev users, or their file; some users are held out to check the winner.
        program: A `Program`, with its models, schema and head; or names of programs to search over. A compiled one, or
            the folder of its artifact (`./tuned` or a `Path`, if it has the name of a program), is where the compile
            goes on from: its prompts take the place of the original ones, and its adapter stays unless `finetune`
            trains another.
        out: Folder of the artifact; its subfolder `search/` holds the state to resume from.
        trials: Number of programs to try, with the uncompiled one.
        budget_usd, max_calls, max_minutes: Most dollars, model calls and minutes to spend; None for no limit. The
            limits of a `Program` hold as well, and what is spent counts against them; the compiled one has none.
        workers: Number of users scored in parallel.
        retry_unparsable: Whether to ask again where a stored answer is unparsable.
        via: `batch` has the questions of the fixed phases (the uncompiled program, the finalists, the held-out check)
            answered by batches, at their price; the search itself asks call by call. See `evaluate`.
        on_event: Receives notes and progress.
        options: See `CompileOptions`.

    Returns:
        The compiled program; its `manifest` holds the verdict of the held-out check.

    Raises:
        InputError: if the cases are not dev cases, `out` holds another compile, an option is not valid, or models are
            given with a `Program`.
        BudgetExceededError: if the budget ended before there was a checked winner; all answers are cached.
        WaveWritten: after questions were written to the file `via`.
    """
    budget = budget_of(budget_usd, max_calls, max_minutes)
    compiler = _compiler(cases, program, out, trials, budget, workers, on_event, options, retry_unparsable)
    batch = batch_run(via, compiler.ledger, retry_unparsable, on_event)
    with closing_calls(compiler.ledger, batch, _programs(program)):
        if batch is not None:
            compiler.ahead = _ahead(batch, compiler)
        compiler.run()
    given = program.choice.given if isinstance(program, Program) else {}
    roles = compiler.settings.roles
    models = {role: given[roles.of(role).model] for role in ROLE_NAMES if roles.of(role).model in given}
    return load_artifact(out, compiler.cases.dataset, on_event=on_event, **models)


def forecast_compile_cost(
    cases: Cases | str | Path,
    program: Compilable = "listwise",
    *,
    out: str | Path,
    trials: int = 12,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    workers: int = 1,
    on_event: OnEvent = ignore,
    **options: Unpack[CompileOptions],
) -> list[Phase]:
    """Upper bounds of the cost of `compile_program` with the same arguments, from a few measured calls.

    A note says if the budget is too small.

    Raises:
        InputError: as `compile_program`, or if the optimizer is not `study`.
    """
    optimizer = options.get("optimizer", "study")
    if optimizer not in ("study", "finetune"):
        raise InputError(f"only study and finetune have a forecast; limit {optimizer} with --max-calls or --budget-usd")
    budget = budget_of(budget_usd, max_calls, max_minutes)
    compiler = _compiler(cases, program, out, trials, budget, workers, on_event, options)
    with closing_calls(compiler.ledger, None, _programs(program)):
        phases = compiler.forecast()
        problem = check_unpaid(phases, compiler.ledger.budget) or search_unpaid(phases, compiler.ledger.budget)
        if problem is not None:
            on_event(Note(f"warning: {problem}"))
        return phases


def _programs(program: Compilable) -> list[Program]:
    """Those whose limits hold."""
    return [program] if isinstance(program, Program) else []


def _ahead(batch: BatchRun, compiler: Compiler) -> AskAhead:
    """Batches ahead of the fixed phases of a compile; refuses programs whose models have no batch interface."""
    optimizer = compiler.settings.optimizer
    if optimizer in ("finetune", "prototypes"):
        raise InputError(f"the optimizer {optimizer} asks no model that takes batches: leave out --via")
    ahead = AskAhead(batch, compiler.parts, {} if compiler.start is None else compiler.start.prompts)
    for family in compiler.settings.space.families:
        askable(PROGRAMS[family](ahead.parts))
    return ahead


def _artifact_choice(names: Sequence[str | Path], options: CompileOptions) -> RankerChoice | None:
    """The compiled program in a folder; None for names of programs, also where a folder has the same name."""
    if len(names) != 1 or names[0] in PROGRAMS or not is_artifact(Path(names[0])):
        return None
    return resolve_ranker(str(names[0]), models_of(options), Fusion())


def _with_defaults(options: CompileOptions, families: Sequence[str], choice: RankerChoice | None) -> CompileOptions:
    """The options, with those of the programs where they do not say otherwise.

    Args:
        choice: The program that is compiled; None for names of programs.

    Raises:
        InputError: if only some of the programs have no fusion weight to choose, see `fusion_of`.
    """
    own = CompileOptions()
    if reranking := [name for name in families if name in RERANKING]:
        if others := [name for name in families if name not in RERANKING]:
            raise InputError(
                f"program: {reranking[0]!r} ranks the prior's first candidates alone and has no fusion weight, so it "
                f"cannot be searched together with {others[0]!r}; compile each of them by itself"
            )
        fusion = fusion_of(reranking[0], Fusion())
        own |= CompileOptions(head=fusion.head, weights=[fusion.weight], fit_weight=False)
    if choice is not None:
        own |= CompileOptions(schema=choice.schema, head=choice.fusion.head, weights=[choice.fusion.weight])
    return CompileOptions(**{**own, **{name: value for name, value in options.items() if value is not None}})  # type: ignore[typeddict-item]


def _compiler(
    cases: Cases | str | Path,
    program: Compilable,
    out: str | Path,
    trials: int,
    budget: Budget,
    workers: int,
    on_event: OnEvent,
    options: CompileOptions,
    retry_unparsable: bool = False,
) -> Compiler:
    """The compiler; refuses programs whose models cannot be used."""
    cases = read_cases(cases)
    names = [program] if isinstance(program, str | Path) else [] if isinstance(program, Program) else list(program)
    for given_program in _programs(program):
        given_program.refuse_other(**given_models(options))
    choice = program.choice if isinstance(program, Program) else _artifact_choice(names, options)
    if choice is None:
        families, start = [str(name) for name in names], None
        roles, given = roles_of(options)
    else:
        if choice.roles is None:
            raise InputError(f"{choice.name}: give a program that has its own models")
        start = Start.of(choice.path) if isinstance(choice, ArtifactChoice) else None
        families, roles, given = [choice.name if start is None else start.family], choice.roles, choice.given
    options = _with_defaults(options, families, choice)
    plan = Path(out) / SEARCH_FOLDER / PLAN
    given_prior = options.get("prior")
    if given_prior is None:
        prior = prior_of_compile(plan, NEWEST if choice is None else choice.prior or NEWEST)
    else:
        prior = prior_name(given_prior)
        if choice is not None:
            choice.with_prior(prior)
    begun = defaults_of_compile(plan), tuning_of_compile(plan)
    sha256 = "" if start is None else start.sha256
    path = Path(out) / SEARCH_FOLDER / LEDGER
    for limited in _programs(program):
        budget = limited.budget_within(budget, path)
    if not plan.exists():  # An older version took such options: what it began has to resume with them.
        refuse_unread(options, families, trials)
        read = [options_read_by(name) for name in families] if choice is None else [choice.options_read]
        refuse_ignored([] if isinstance(program, Program) else read, **named_models(options))
    settings = compile_settings(cases, families, roles, trials, options, prior, *begun, sha256)
    ledger = Ledger(path, budget)
    tell_list_warnings(cases, on_event)
    factory = RankerFactory.create(
        cases.dataset,
        cases.training,
        settings.roles,
        ledger,
        schema=settings.motivations,
        fusion=Fusion(head=settings.head),
        prior=prior,
        given=given,
        retry_unparsable=retry_unparsable,
        on_event=on_event,
    )
    parts = factory.parts() if start is None else replace(factory.parts(), reader=start.reader)
    for family in families:
        askable(PROGRAMS[family](parts))
    similarity = similarity_named(settings.similarity, factory.encoder)
    watcher = EventWatcher(ledger, on_event)
    whole = Path(out), settings, cases, parts, similarity, watcher, workers
    if settings.optimizer == "finetune":
        return FineTuning(*whole, on_event, start=start)
    return Compiler(*whole, start=start)
