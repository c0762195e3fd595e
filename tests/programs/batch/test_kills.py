"""Runs by batches, killed at any moment: nothing submitted twice, every cent in the ledger, the same results."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dspy
import pytest

from evaluate.runs.journal import Journal
from evaluate.runs.run import run_cases
from programs.batch import job_files, run
from programs.batch.job_table import JobTable
from programs.batch.openai_form import OpenAIForm
from programs.batch.run import BatchRun
from programs.lm.backends import Backends
from programs.lm.ledger import Ledger, read_calls
from programs.lm.response_cache import ResponseCache, use_response_cache
from programs.lm.roles import local_roles
from programs.prior.scorers import Popularity
from programs.program import Parts, pointwise
from programs.runtime.environment import variable
from programs.trait_store import TraitStore
from tests.support.batch_server import BatchServer, unlucky
from tests.support.encoders import LetterEncoder
from tests.support.runs import MANIFEST, judgements
from tests.support.small_shop import CASE, POPULARITY, SHOP

KILLS = 40
CASES = [
    CASE.model_copy(update={"candidates": CASE.candidates[:3]}),
    CASE.model_copy(update={"user_id": "bob", "candidates": CASE.candidates[1:2]}),
]

STEPS: tuple[tuple[Any, str], ...] = (
    (job_files, "write_atomically"),
    (JobTable, "add"),
    (JobTable, "update"),
    (JobTable, "settle"),
    (OpenAIForm, "upload"),
    (OpenAIForm, "find"),
    (OpenAIForm, "create"),
    (OpenAIForm, "progress"),
    (ResponseCache, "keep"),
    (Ledger, "record"),
    (Journal, "append"),
)
"""Everything that changes something on disk or at the provider; a kill comes before or after it."""


Moment = tuple[str, str]
"""Name of a step, and `before` or `after`."""


class Killed(BaseException):
    """Stands for `kill -9` in this process."""


class Killer:
    """Kills at one moment: before or after the n-th time that a step is made.

    Attributes:
        left: How often the moment comes until then.
    """

    def __init__(self) -> None:
        self.moment: Moment | None = None
        self.left = 0

    def set(self, moment: Moment | None, times: int = 1) -> None:
        """Choose the moment; None for none."""
        self.moment, self.left = moment, times

    def around(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        """The same step with a moment before and after it."""

        def with_moments(*args: Any, **more: Any) -> Any:
            self._pass(name, "before")
            result = step(*args, **more)
            self._pass(name, "after")
            return result

        return with_moments

    def _pass(self, name: str, side: str) -> None:
        if self.moment == (name, side):
            self.left -= 1
            if not self.left:
                raise Killed


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch) -> Killer:
    """Moments around all steps."""
    made = Killer()
    for where, name in STEPS:
        monkeypatch.setattr(where, name, made.around(name, getattr(where, name)))
    monkeypatch.setattr(run, "POLL", (0.0, 0.0))
    monkeypatch.setattr(run, "SETTLING", 0.0)
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Folders, each with a cache of its own."""
    before = dspy.cache

    def made(name: str) -> Path:
        monkeypatch.setenv(variable("cache"), str(tmp_path / name / "cache"))
        return tmp_path / name

    yield made
    dspy.cache = before


def parts(backends: Backends) -> Parts:
    """Of the program on a small shop."""
    return Parts(backends, SHOP, Popularity(POPULARITY), LetterEncoder(), TraitStore())


def session(server: BatchServer, folder: Path) -> Mapping[str, Any]:
    """A session of a run by batches: its rows."""
    cache = use_response_cache(folder / "cache" / "calls.sqlite")
    ledger = Ledger(folder / "ledger.jsonl")
    batch = BatchRun(ledger)
    try:
        program = pointwise(parts(batch.backends(local_roles(server.model()))))
        with Journal.open(folder / "run", MANIFEST) as journal:
            batch.until_answered(lambda: run_cases(CASES, program, journal, ledger))
            return judgements(journal.rows())
    finally:
        batch.close()
        ledger.close()
        cache.close()


def by_calls(server: BatchServer, folder: Path) -> Mapping[str, Any]:
    """The rows of the same run, each call sent by itself."""
    cache = use_response_cache(folder / "cache" / "calls.sqlite")
    program = pointwise(parts(Backends(local_roles(server.model()), Ledger(folder / "ledger.jsonl"))))
    with Journal.open(folder / "run", MANIFEST) as journal:
        run_cases(CASES, program, journal, Ledger())
        rows = judgements(journal.rows())
    cache.close()
    return rows


def test_kills_between_any_two_steps(
    killer: Killer, folder: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random("kills of batches")
    planned = 2 * [(name, side) for _, name in STEPS for side in ("before", "after")]
    rng.shuffle(planned)
    kills, runs = 0, 0
    while planned:
        runs += 1
        with BatchServer(unlucky(runs), looks=rng.choice((0, 1))) as server:
            monkeypatch.setenv(variable("prices"), str(server.prices(tmp_path / "prices.toml")))
            expected = by_calls(server, folder(f"calls {runs}"))
            questions = len(server.bodies)
            here = folder(f"run {runs}")
            rows: Mapping[str, Any] | None = None
            while rows is None:
                killer.set(planned[-1] if planned else None, rng.choice((1, 1, 2, 5)))
                try:
                    rows = session(server, here)
                except Killed:
                    kills += 1
                    planned.pop()
            killer.set(None)
        assert rows == expected
        assert server.paid_twice() == []
        assert len(server.bodies) == 2 * questions
        calls = [call for call in read_calls(here / "ledger.jsonl") if not call.hit]
        assert len({call.id for call in calls}) == len(calls)
        assert sum(call.usd or 0.0 for call in calls) == pytest.approx(server.bill, abs=1e-12)
    assert kills >= KILLS
