"""Sessions of a small run, by batches and by calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from evaluate.runs.journal import Journal
from evaluate.runs.run import run_cases
from programs.batch.run import BatchRun
from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Call, Ledger, read_calls
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import Roles, local_roles
from programs.program import pointwise
from programs.runtime.environment import cache_dir
from signatures.rows import Case
from tests.support.batch_server import BatchServer
from tests.support.runs import MANIFEST, judgements
from tests.support.small_shop import CASE, parts_of

CASES = [
    CASE.model_copy(update={"candidates": CASE.candidates[:3]}),
    CASE.model_copy(update={"user_id": "bob", "candidates": CASE.candidates[1:2]}),
]
ANTHROPIC, GOOGLE = "anthropic/claude-haiku-4-5", "gemini/gemini-3.8-flash"

RolesOn = Callable[[BatchServer], Roles]
"""From a server to roles whose models are behind an interface there."""

_LEDGER = "ledger.jsonl"


def all_on(server: BatchServer, model: str) -> Roles:
    """Roles on one hosted model, which a server stands for."""
    return local_roles(server.model()).with_models(**dict.fromkeys(("mope", "mote", "mar", "judge"), model))


def by_batches(
    roles: Roles,
    folder: Path,
    after_wave: Callable[[], None] = lambda: None,
    cases: Sequence[Case] = CASES,
    budget: Budget | None = None,
) -> Mapping[str, Any]:
    """A session of a run by batches: its rows.

    Args:
        after_wave: Called at the end of every wave, before its questions are submitted.
    """
    cache = use_response_cache(cache_dir() / "calls.sqlite")
    ledger = Ledger(folder / _LEDGER, budget)
    batch = BatchRun(ledger)
    try:
        program = pointwise(parts_of(batch.backends(roles)))
        with Journal.open(folder / "run", MANIFEST) as journal:

            def wave() -> None:
                run_cases(cases, program, journal, ledger)
                after_wave()

            batch.until_answered(wave)
            return judgements(journal.rows())
    finally:
        batch.close()
        ledger.close()
        cache.close()


def by_calls(roles: Roles, folder: Path) -> Mapping[str, Any]:
    """The rows of the same run, each call sent by itself."""
    cache = use_response_cache(folder / "cache" / "calls.sqlite")
    program = pointwise(parts_of(Backends(roles, Ledger())))
    with Journal.open(folder / "run", MANIFEST) as journal:
        run_cases(CASES, program, journal, Ledger())
        rows = judgements(journal.rows())
    cache.close()
    return rows


def paid_calls(folder: Path) -> list[Call]:
    """The calls in the ledger of a run that are no cache hits."""
    return [call for call in read_calls(folder / _LEDGER) if not call.hit]
