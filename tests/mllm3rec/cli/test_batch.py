"""`--via batch` and `mllm3rec batch`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from programs.batch import run
from programs.lm.ledger import read_calls
from programs.runtime.environment import variable
from tests.support.batch_server import BatchServer, unlucky
from tests.support.cases import cases_file
from tests.support.command_line import CommandLine
from tests.support.runs import judgements, rows_in


@pytest.fixture(autouse=True)
def hurried_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at jobs follow each other at once."""
    monkeypatch.setattr(run, "POLL", (0.001, 0.001))
    monkeypatch.setattr(run, "SETTLING", 0.0)
    monkeypatch.setattr(run, "_FIRST_PAUSE", 0.0)
    monkeypatch.setenv(variable("encoder"), "hashing")


@pytest.fixture
def jobs() -> Iterator[BatchServer]:
    """A server that answers every line."""
    with BatchServer() as server:
        yield server


def evaluated(server: BatchServer, folder: Path, *more: object, ranker: str = "pointwise") -> list[object]:
    """A command that ranks two users, with prices."""
    prices = server.prices(folder / "prices.toml")
    cases = folder / "cases.jsonl"
    if not cases.exists():
        cases_file(cases, 2, negatives=3, part="test")
    model = ["--ranker", ranker, "--model", server.model(), "--prices", prices]
    return ["evaluate", cases, *model, *more, "--json"]


@pytest.mark.parametrize("ranker", ["pointwise", "listwise", "first-token"])
def test_the_same_results_as_by_calls_at_half_the_price(
    cli: CommandLine, tmp_path: Path, ranker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with BatchServer(unlucky(1)) as server:
        by_calls = cli(*evaluated(server, tmp_path, "--out", tmp_path / "calls", ranker=ranker))
        asked = len(server.bodies)
        monkeypatch.setenv(variable("cache"), str(tmp_path / "other"))
        command = evaluated(server, tmp_path, "--out", tmp_path / "run", "--via", "batch", ranker=ranker)
        in_batches = cli(*command)
    assert (by_calls.code, in_batches.code) == (0, 0), in_batches.err
    assert judgements(rows_in(tmp_path / "run")) == judgements(rows_in(tmp_path / "calls"))
    assert len(server.bodies) == 2 * asked
    assert server.paid_twice() == []
    calls = [call for call in read_calls(tmp_path / "run" / "ledger.jsonl") if not call.hit]
    assert sum(call.usd or 0.0 for call in calls) == pytest.approx(server.bill)
    assert {call.via for call in calls} == {"batch"}
    assert in_batches.json["usage"]["usd"] == pytest.approx(by_calls.json["usage"]["usd"] / 2)
