"""SIGTERM and SIGHUP end a command like Ctrl-C: nothing is lost, and it says how to go on."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from programs.runtime.interrupts import GRACE
from tests.soak import LONG
from tests.soak.commands import COMMANDS, OPTIMIZERS, Job
from tests.soak.counting_server import counting_server

GOES_ON = "everything done so far is kept: the same command goes on from there"


@pytest.mark.parametrize("name", COMMANDS if LONG else ("evaluate", "compile"))
def test_a_terminated_command_has_lost_nothing(name: str, tmp_path: Path) -> None:
    with counting_server() as server:
        job = Job(name, tmp_path / "job", server)
        for number in (signal.SIGTERM, signal.SIGHUP) if LONG or name == "evaluate" else (signal.SIGTERM,):
            with job.started() as command:
                command.wait_for(server.total + 15)
                command.signal(number)
                assert command.exit_code(30) == 128 + number
                assert f"ended by {number.name}; {GOES_ON}" in command.said
                assert "Traceback" not in command.said
        assert job.finish() == 0
        assert not any(call.in_flight or call.failed for call in job.calls())
        assert len(job.calls()) == server.total


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)][: 2 if LONG else 1])
def test_a_server_that_never_answers_holds_nobody(number: int, code: int, tmp_path: Path) -> None:
    with counting_server(latency=600.0) as server:
        job = Job("evaluate", tmp_path / "job", server)
        with job.started() as command:
            command.wait_for(3)
            began = time.monotonic()
            command.signal(number)
            assert command.exit_code(60) == code
            assert time.monotonic() - began < 2 * GRACE + 5
            assert GOES_ON in command.said
        assert [call.in_flight for call in job.calls()] == [True] * 3


@pytest.mark.parametrize("optimizer", OPTIMIZERS if LONG else ("mipro",))
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)][: 2 if LONG else 1])
def test_an_optimizer_of_dspy_loses_nothing(optimizer: str, number: int, code: int, tmp_path: Path) -> None:
    with counting_server() as server:
        Job(optimizer, tmp_path / "undisturbed", server).finish()
        whole = server.total
        job = Job(optimizer, tmp_path / "job", server)
        for share in (0.3, 0.7):
            with job.started() as command:
                command.wait_for(whole + int(share * whole))
                command.signal(number)
                assert command.exit_code(30) == code
                assert GOES_ON in command.said
                assert "Traceback" not in command.said
        assert job.finish() == 0
        assert job.results() == Job(optimizer, tmp_path / "undisturbed", server).results()
        assert server.total == 2 * whole == whole + len(job.calls())
