"""`kill -9` at random moments: same results, calls under their limit, and only calls in flight paid for twice."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from programs.lm.prices import Price
from tests.soak import LONG
from tests.soak.commands import COMMANDS, WORKERS, Job
from tests.soak.counting_server import counting_server

KILLS = 25 if LONG else 2
SESSIONS = 8 if LONG else 3
"""Sessions that the calls of a whole run are divided into, so that each is killed on its way."""


@dataclass(frozen=True)
class Whole:
    """A run that nobody disturbed."""

    name: str
    results: dict[str, Any]
    counts: Counter[str]

    @property
    def calls(self) -> int:
        """Calls it takes."""
        return self.counts.total()


@pytest.fixture(scope="module", params=list(COMMANDS))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Each command, undisturbed."""
    with counting_server() as server:
        job = Job(request.param, tmp_path_factory.mktemp("whole") / "job", server)
        assert job.finish() == 0
        calls = job.calls()
        assert len(calls) == server.total
        assert not any(call.in_flight for call in calls)
        return Whole(request.param, job.results(), server.counts)


def killed(job: Job, rng: random.Random, span: int, *more: object) -> int | None:
    """Start the command and kill it at a random moment, if it has not ended by then; its exit code."""
    with job.started(*more) as command:
        if rng.random() < 0.15:
            time.sleep(rng.uniform(0.0, 1.5))  # while it starts, or between two calls
        else:
            command.wait_for(job.server.total + rng.randint(1, span))
            time.sleep(rng.uniform(0.0, 0.04))
        command.signal(signal.SIGKILL)
        code = command.exit_code()
        assert "Traceback" not in command.said, command.log.read_text()
        return code


def test_a_killed_command_ends_like_one_that_was_not(whole: Whole, tmp_path: Path) -> None:
    rng = random.Random(f"kills of {whole.name}")
    span = max(2, 2 * whole.calls // SESSIONS)
    kills = rounds = in_flight = twice = 0
    while kills < KILLS:
        rounds += 1
        with counting_server() as server:
            job = Job(whole.name, tmp_path / str(rounds), server)
            kills_before = kills
            while kills < KILLS and (code := killed(job, rng, span)):
                assert code == -signal.SIGKILL
                kills += 1
            assert job.finish() == 0
            assert job.results() == whole.results
            counts, calls = server.counts, job.calls()
        assert set(counts) == set(whole.counts)
        paid_twice = (counts - whole.counts).total()
        interrupted = sum(call.in_flight for call in calls)
        assert paid_twice <= interrupted <= WORKERS * (kills - kills_before)
        assert len(calls) >= counts.total()
        in_flight, twice = in_flight + interrupted, twice + paid_twice
    print(f"\n{whole.name}: {kills} kills in {rounds} runs of {whole.calls} calls, {in_flight} in flight at a kill,")
    print(f"{twice} of them paid for twice, 0 results differ")


def test_a_limit_of_calls_holds_whatever_is_killed(whole: Whole, tmp_path: Path) -> None:
    if not LONG and whole.name != "evaluate":
        pytest.skip("in the long run only")
    rng = random.Random(f"limit of {whole.name}")
    # A compile keeps a reserve for the check of its winner: the limit that it stops at has to be higher.
    limit = whole.calls * (13 if whole.name == "compile" else 6) // 10
    kills, answered = 0, []
    while not answered or kills < KILLS:
        with counting_server() as server:
            job = Job(whole.name, tmp_path / str(len(answered)), server)
            while (code := killed(job, rng, max(2, 2 * limit // SESSIONS), "--max-calls", limit)) == -signal.SIGKILL:
                kills += 1
                assert len(job.calls()) >= server.total
            assert code in (1, 3)
            answered.append(server.total)
            assert job.finish("--max-calls", limit) in (1, 3)
            assert server.total == answered[-1] <= limit
    print(f"\n{whole.name}: {kills} kills in {len(answered)} runs under --max-calls {limit}: {answered} calls answered")


def test_a_limit_of_dollars_holds_whatever_is_killed(tmp_path: Path) -> None:
    rng, price, limit = random.Random("dollars"), Price(input=10.0, output=40.0), 0.5
    span = 10 if LONG else 30
    with counting_server() as server:
        job = Job("evaluate", tmp_path / "job", server, price=price)
        kills = 0
        while (code := killed(job, rng, span, "--budget-usd", limit)) == -signal.SIGKILL:
            kills += 1
            assert sum(call.usd or 0.0 for call in job.calls()) >= price.usd(*server.tokens)
        assert code in (1, 3)
        assert job.finish("--budget-usd", limit) in (1, 3)
        spent = price.usd(*server.tokens)
        assert 0 < spent <= limit
        print(f"\nevaluate: {kills} kills under --budget-usd {limit}: ${spent:.4f} spent")
