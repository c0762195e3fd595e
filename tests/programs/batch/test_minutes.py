"""The minutes of a session limit its wait for batches, too."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from programs.batch import job_keeper, run
from programs.batch.job_keeper import JobKeeper
from programs.lm.ledger import Budget
from programs.lm.roles import local_roles
from programs.runtime.errors import BudgetExceededError
from tests.support.batch_server import BatchServer
from tests.support.batch_sessions import by_batches, by_calls, paid_calls

ENDLESS = 10**9
GOES_ON = r"minutes of this session are over: 1 job of \d+ questions go on at the provider; the same command waits"


def test_jobs_stay_at_the_provider_and_a_later_session_fetches_them(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "LOOK_EVERY", (30.0, 60.0))
    here = folder("run")
    with BatchServer(looks=ENDLESS) as server:
        roles = local_roles(server.model())
        started = time.monotonic()
        with pytest.raises(BudgetExceededError, match=GOES_ON):
            by_batches(roles, here, budget=Budget(minutes=1 / 60))
        assert time.monotonic() - started < 20, "not until the next look"
        keeper = JobKeeper()
        assert [job.state for job in keeper.table.jobs()] == ["created"]
        keeper.close()
        server.looks = 1
        monkeypatch.setattr(run, "LOOK_EVERY", (0.0, 0.0))
        rows = by_batches(roles, here, budget=Budget(minutes=10))
        assert server.paid_twice() == []
        assert len(paid_calls(here)) == sum(len(times) for times in server.submitted.values())
        assert rows == by_calls(roles, folder("calls"))


def test_the_wait_for_a_provider_that_takes_no_job_ends_with_them(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_keeper, "_FIRST_PAUSE", 30.0)
    here = folder("run")
    with BatchServer() as server:
        server.most_enqueued = 0
        roles = local_roles(server.model())
        started = time.monotonic()
        with pytest.raises(BudgetExceededError, match="minutes of this session are over"):
            by_batches(roles, here, budget=Budget(minutes=1 / 60))
        assert time.monotonic() - started < 20
        server.most_enqueued = ENDLESS
        monkeypatch.setattr(job_keeper, "_FIRST_PAUSE", 0.0)
        assert by_batches(roles, here)
        assert server.paid_twice() == []
