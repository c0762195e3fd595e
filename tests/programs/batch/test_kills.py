"""Runs by batches, killed at any moment: nothing submitted twice, every cent in the ledger, the same results."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from evaluate.runs.journal import Journal
from programs.batch import job_files
from programs.batch.anthropic_form import AnthropicForm
from programs.batch.google_form import GoogleForm
from programs.batch.job_table import JobTable
from programs.batch.openai_form import OpenAIForm
from programs.lm.ledger import Ledger
from programs.lm.response_cache import ResponseCache
from programs.runtime.environment import variable
from tests.support.batch_server import BatchServer, FakeBatch, unlucky
from tests.support.batch_sessions import ANTHROPIC, GOOGLE, RolesOn, by_batches, by_calls, paid_calls
from tests.support.failures import Killed

KILLS = 40
HERE: tuple[tuple[Any, str], ...] = (
    (job_files, "write_atomically"),
    (JobTable, "add"),
    (JobTable, "update"),
    (JobTable, "settle"),
    (ResponseCache, "keep_durably"),
    (Ledger, "record"),
    (Journal, "append"),
)
AT_PROVIDERS = ("upload", "find", "create", "progress")
STEPS = (*HERE, *((form, step) for form in (OpenAIForm, AnthropicForm, GoogleForm) for step in AT_PROVIDERS))
"""Everything that changes something on disk or at a provider; a kill comes before or after it."""

Moment = tuple[str, str]
"""Name of a step, and `before` or `after`."""


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
    return made


@pytest.mark.parametrize("roles_on", ["openai", "anthropic", "google"], indirect=True)
def test_kills_between_any_two_steps(
    killer: Killer,
    folder: Callable[[str], Path],
    tmp_path: Path,
    roles_on: RolesOn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = random.Random("kills of batches")
    planned = 2 * [
        (name, side) for name in (*AT_PROVIDERS, *(step for _, step in HERE)) for side in ("before", "after")
    ]
    rng.shuffle(planned)
    kills, runs = 0, 0
    while planned:
        runs += 1
        with BatchServer(unlucky(runs), looks=rng.choice((0, 1))) as server:
            prices = server.prices(tmp_path / "prices.toml", (server.model(), ANTHROPIC, GOOGLE))
            monkeypatch.setenv(variable("prices"), str(prices))
            roles = roles_on(server)
            expected = by_calls(roles, folder(f"calls {runs}"))
            questions = len(server.bodies)
            here = folder(f"run {runs}")
            rows: Mapping[str, Any] | None = None
            while rows is None:
                killer.set(planned[-1] if planned else None, rng.choice((1, 1, 2, 5)))
                try:
                    rows = by_batches(roles, here)
                except Killed:
                    kills += 1
                    planned.pop()
            killer.set(None)
        assert rows == expected
        assert server.paid_twice() == []
        assert len(server.bodies) == 2 * questions
        calls = paid_calls(here)
        assert len({call.id for call in calls}) == len(calls)
        assert sum(call.usd or 0.0 for call in calls) == pytest.approx(server.bill, abs=1e-12)
    assert kills >= KILLS


def test_a_message_batch_is_found_by_its_size_and_time(
    killer: Killer, folder: Callable[[str], Path], anthropic: RolesOn
) -> None:
    with BatchServer() as server:
        roles, here = anthropic(server), folder("run")
        killer.set(("create", "after"))
        with pytest.raises(Killed):
            by_batches(roles, here)
        assert len(server.batches) == 1
        killer.set(None)
        rows = by_batches(roles, here)
    assert server.paid_twice() == []
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert sum(call.tokens_in for call in paid_calls(here)) > 0


def test_a_batch_of_somebody_else_is_not_taken_for_ours(
    killer: Killer, folder: Callable[[str], Path], anthropic: RolesOn
) -> None:
    with BatchServer() as server:
        roles, here = anthropic(server), folder("run")
        killer.set(("create", "before"))
        with pytest.raises(Killed):
            by_batches(roles, here)
        assert not server.batches
        (path,) = (here / "cache" / "batches").glob("*.jsonl")
        size = len(path.read_bytes().splitlines())
        foreign = {"model": "x", "max_tokens": 5, "messages": [{"role": "user", "content": "hello"}]}
        server.batches["msgbatch-0"] = FakeBatch("msgbatch-0", [(f"theirs-{n}", foreign) for n in range(size)])
        killer.set(None)
        rows = by_batches(roles, here)
    assert server.paid_twice() == []
    assert {row["status"] for row in rows.values()} == {"ok"}
