"""Compile a program: tune demos and instructions on dev cases, check the winner on held-out users, freeze it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

from evaluate.protocol.cases import Cases, load_cases
from evaluate.ranker_factory import RankerFactory, askable
from evaluate.runs.directory import LEDGER
from mllm3rec.api.compile_options import CompileOptions, compile_settings, roles_of
from mllm3rec.api.options import budget_of
from mllm3rec.api.program import Program, load_artifact
from optimize.artifact import SEARCH_FOLDER
from optimize.compiler import Compiler
from optimize.consistency import similarity_named
from optimize.event_watcher import EventWatcher
from optimize.forecast import Phase, check_unpaid, search_unpaid
from programs.lm.ledger import Budget, Ledger
from programs.lm.roles import ROLE_NAMES
from programs.program import PROGRAMS, Fusion
from programs.runtime.errors import InputError
from programs.runtime.events import Note, OnEvent, ignore

Compilable = Program | str | Sequence[str]
"""A `Program` that was not compiled, or names of programs."""


def compile_program(
    cases: Cases | str | Path,
    program: Compilable = "listwise",
    *,
    out: str | Path,
    trials: int = 12,
    budget_usd: float | None = None,
    max_calls: int | None = None,
    workers: int = 1,
    on_event: OnEvent = ignore,
    **options: Unpack[CompileOptions],
) -> Program:
    """Tune the prompts of MOPE, MOTE and MAR, or go on with the compile that is in `out`.

    Args:
        cases: Dev cases, or a file of them; some are held out to check the winner.
        program: A `Program`, whose models, schema and head are taken; or the name of a program, several of which are
            searched over.
        out: Folder of the artifact; `search/` in it holds what is resumed from. The same call resumes it.
        trials: Programs to try, the uncompiled one included.
        budget_usd, max_calls: Stop before more is spent.
        workers: Users scored at the same time.
        on_event: Gets notes and progress.
        options: See `CompileOptions`.

    Returns:
        The compiled program; its `manifest` holds the verdict of the held-out check.

    Raises:
        InputError: if the cases are not dev cases, `out` holds another compile, or an option is not valid.
        BudgetExceededError: if the budget ended before there was a winner; everything paid for is kept.
    """
    compiler = _compiler(cases, program, out, trials, budget_of(budget_usd, max_calls), workers, on_event, options)
    try:
        compiler.run()
    finally:
        compiler.ledger.close()
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
    workers: int = 1,
    on_event: OnEvent = ignore,
    **options: Unpack[CompileOptions],
) -> list[Phase]:
    """Measure a handful of calls and say what `compile_program` with the same arguments would take at most.

    A budget that is too small for it is noted.

    Raises:
        InputError: as `compile_program`; or if the optimizer is not `study`, which alone can be forecast.
    """
    optimizer = options.get("optimizer", "study")
    if optimizer != "study":
        raise InputError(f"a forecast is of a study only; bound {optimizer} with --max-calls or --budget-usd")
    compiler = _compiler(cases, program, out, trials, budget_of(budget_usd, max_calls), workers, on_event, options)
    try:
        phases = compiler.forecast()
        problem = check_unpaid(phases, compiler.ledger.budget) or search_unpaid(phases, compiler.ledger.budget)
        if problem is not None:
            on_event(Note(f"warning: {problem}"))
        return phases
    finally:
        compiler.ledger.close()


def _compiler(
    cases: Cases | str | Path,
    program: Compilable,
    out: str | Path,
    trials: int,
    budget: Budget,
    workers: int,
    on_event: OnEvent,
    options: CompileOptions,
) -> Compiler:
    """A compiler on the data its cases were drawn from; refuses roles that cannot be asked."""
    cases = cases if isinstance(cases, Cases) else load_cases(cases)
    if isinstance(program, Program):
        choice = program.choice
        if program.manifest is not None or choice.roles is None:
            raise InputError(f"{program.name}: give a program that was not compiled yet, with models of its own")
        families, roles, given = [choice.name], choice.roles, choice.given
        own = CompileOptions(schema=choice.schema, head=choice.fusion.head, weights=[choice.fusion.weight])
        options = CompileOptions(**{**own, **options})
    else:
        families = [program] if isinstance(program, str) else list(program)
        roles, given = roles_of(options)
    settings = compile_settings(cases, families, roles, trials, options)
    ledger = Ledger(Path(out) / SEARCH_FOLDER / LEDGER, budget)
    factory = RankerFactory.create(
        cases.dataset,
        cases.training,
        roles,
        ledger,
        schema=settings.motivations,
        fusion=Fusion(head=settings.head),
        given=given,
        on_event=on_event,
    )
    parts = factory.parts()
    for family in families:
        askable(PROGRAMS[family](parts))
    similarity = similarity_named(settings.similarity, factory.encoder)
    return Compiler(Path(out), settings, cases, parts, similarity, EventWatcher(ledger, on_event), workers)
