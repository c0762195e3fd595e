"""Two processes with one cache do not pay for one question twice."""

from __future__ import annotations

import signal
from pathlib import Path

from evaluate.runs.directory import LEDGER
from programs.lm.ledger import read_calls
from tests.soak.commands import Job
from tests.soak.counting_server import counting_server


def test_two_runs_at_once_pay_for_each_question_once(tmp_path: Path) -> None:
    with counting_server() as server:
        jobs = [Job("evaluate", tmp_path / name, server, cache=tmp_path / "cache") for name in ("one", "two")]
        with jobs[0].started() as first, jobs[1].started() as second:
            assert (first.exit_code(), second.exit_code()) == (0, 0)
        assert jobs[0].results() == jobs[1].results()
        assert set(server.counts.values()) == {1}
        at = [[call.at for call in read_calls(job.out / LEDGER)] for job in jobs]
        begun, ended = max(min(times) for times in at), min(max(times) for times in at)
        assert begun < ended, "one of them came when the other was done"


def test_the_questions_of_a_killed_process_are_asked_by_the_other(tmp_path: Path) -> None:
    with counting_server() as server:
        jobs = [Job("evaluate", tmp_path / name, server, cache=tmp_path / "cache") for name in ("one", "two")]
        with jobs[0].started() as first, jobs[1].started() as second:
            first.wait_for(20)
            first.signal(signal.SIGKILL)
            assert (first.exit_code(), second.exit_code()) == (-signal.SIGKILL, 0)
        twice = sum(count - 1 for count in server.counts.values())
        assert twice <= sum(call.in_flight for call in jobs[0].calls())
