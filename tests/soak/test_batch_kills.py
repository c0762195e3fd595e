"""`kill -9` of a run by batches, before or after the provider has worked on one of its requests."""

from __future__ import annotations

import random
import signal
from pathlib import Path

import pytest

from programs.lm.ledger import read_calls
from programs.runtime.environment import variable
from tests.soak import LONG
from tests.soak.commands import run_command
from tests.soak.counting_server import PROCESSES
from tests.support.batch_server import BatchServer, unlucky
from tests.support.cases import cases_file
from tests.support.runs import judgements, rows_in

RUNS = 10 if LONG else 1
KILLS = 4 if LONG else 3
"""Of one run."""


def command(server: BatchServer, folder: Path, run: str, *more: object) -> int | None:
    """Rank users in a process of its own; its exit code."""
    prices = server.prices(folder / "prices.toml")
    arguments = ["evaluate", folder / "cases.jsonl", "--ranker", "pointwise", "--model", server.model()]
    arguments += ["--prices", prices, "--out", folder / run, *more]
    environment = {variable("cache"): str(folder / f"{run} cache"), variable("encoder"): "hashing"}
    log = folder / "log.txt"
    log.touch()
    process = PROCESSES.Process(target=run_command, args=([str(one) for one in arguments], environment, str(log)))
    process.start()
    if server.kill is not None:
        assert process.pid is not None
        server.kill = process.pid, *server.kill[1:]
    process.join(120)
    assert "Traceback" not in log.read_text(), log.read_text()
    return process.exitcode


@pytest.mark.parametrize("number", range(RUNS))
def test_a_killed_run_submits_nothing_twice_and_pays_every_cent(tmp_path: Path, number: int) -> None:
    rng = random.Random(f"kill -9 of batches {number}")
    cases_file(tmp_path / "cases.jsonl", 2, negatives=3, part="test")
    with BatchServer(unlucky(3 + number)) as server:
        assert command(server, tmp_path, "calls") == 0
        questions = len(server.bodies)
        kills = 0
        while kills < KILLS:
            server.kill = 0, server.requests + rng.randint(1, 6), rng.random() < 0.5
            code = command(server, tmp_path, "run", "--via", "batch")
            assert code in (0, -signal.SIGKILL)
            if not code:
                break
            kills += 1
        server.kill = None
        assert command(server, tmp_path, "run", "--via", "batch") == 0
    assert kills >= min(KILLS, 3)
    assert judgements(rows_in(tmp_path / "run")) == judgements(rows_in(tmp_path / "calls"))
    assert server.paid_twice() == []
    assert len(server.bodies) == 2 * questions
    calls = [call for call in read_calls(tmp_path / "run" / "ledger.jsonl") if not call.hit]
    assert sum(call.usd or 0.0 for call in calls) == pytest.approx(server.bill, abs=1e-12)
