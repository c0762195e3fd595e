"""One flight for equal questions, among threads and processes."""

from __future__ import annotations

import hashlib
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from programs.lm.ledger import Ledger
from programs.lm.response_cache import ResponseCache
from programs.lm.single_flight import SingleFlight
from programs.runtime.errors import BudgetExceededError
from tests.support.paths import ROOT
from tests.support.threads import eventually, in_thread

QUESTION, OTHER = (hashlib.sha256(text).hexdigest() for text in (b"a cup", b"a bowl"))
HOLDER = """
import sys, time
from pathlib import Path
from programs.lm.single_flight import SingleFlight
with SingleFlight.beside(Path(sys.argv[1])).flight(sys.argv[2], time.sleep, 60):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held_elsewhere(cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process asks `QUESTION`, until its standard input is closed."""
    command = [sys.executable, "-c", HOLDER, str(cache), QUESTION]
    with subprocess.Popen(  # noqa: S603 - this test's own words
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "held\n"
            yield process
        finally:
            process.kill()


def taken(flights: SingleFlight, question: str, patience: float = 60.0) -> float:
    """Seconds until a question could be asked."""
    began = time.monotonic()
    with flights.flight(question, time.sleep, patience):
        return time.monotonic() - began


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "calls.sqlite"


def test_threads_ask_an_equal_question_one_after_another() -> None:
    flights, inside, most = SingleFlight(), [], []

    def ask() -> None:
        with flights.flight(QUESTION, time.sleep, 60):
            inside.append(None)
            most.append(len(inside))
            time.sleep(0.02)
            inside.pop()

    threads = [in_thread(ask)[0] for _ in range(6)]
    for thread in threads:
        thread.join()
    assert most == [1] * 6


def test_another_question_does_not_wait() -> None:
    flights = SingleFlight()
    with flights.flight(QUESTION, time.sleep, 60):
        assert taken(flights, OTHER) < 1


def test_a_question_waits_for_another_process_until_that_has_the_answer(cache: Path) -> None:
    flights = SingleFlight.beside(cache)
    with held_elsewhere(cache) as process:
        waiting, came = in_thread(lambda: taken(flights, QUESTION))
        assert taken(flights, OTHER) < 1
        time.sleep(0.2)
        assert not came
        assert process.stdin is not None
        process.stdin.close()
        waiting.join()
    assert came[0] >= 0.2


def test_a_killed_process_holds_nothing(cache: Path) -> None:
    with held_elsewhere(cache) as process:
        waiting, came = in_thread(lambda: taken(SingleFlight.beside(cache), QUESTION))
        time.sleep(0.1)
        process.kill()
        waiting.join(30)
    assert came


def test_a_process_that_hangs_is_waited_for_as_long_as_a_call_may_take(cache: Path) -> None:
    with held_elsewhere(cache):
        assert 0.2 <= taken(SingleFlight.beside(cache), QUESTION, patience=0.2) < 30


def test_a_stopped_ledger_ends_the_wait(cache: Path) -> None:
    ledger = Ledger()

    def ask() -> None:
        with SingleFlight.beside(cache).flight(QUESTION, ledger.wait, 60):
            pass

    with held_elsewhere(cache):
        waiting, came = in_thread(ask)
        time.sleep(0.1)
        ledger.stop("interrupted")
        waiting.join(30)
    assert isinstance(came[0], BudgetExceededError)


def test_caches_on_one_file_have_one_object_and_the_file_is_private_and_empty(cache: Path) -> None:
    first, second = ResponseCache(cache), ResponseCache(cache)
    assert first.flights is second.flights
    taken(first.flights, QUESTION)
    lock = cache.with_name("calls.sqlite.lock")
    assert lock.stat().st_size == 0
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    first.close()
    second.close()


def test_a_lock_file_that_cannot_be_used_is_no_reason_not_to_ask(cache: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    cache.with_name("calls.sqlite.lock").symlink_to(victim)
    assert taken(SingleFlight.beside(cache), QUESTION) < 1
    assert victim.read_text() == "mine"


def test_who_waits_gets_its_turn_when_the_block_fails() -> None:
    flights, began = SingleFlight(), threading.Event()

    def fail() -> None:
        with flights.flight(QUESTION, time.sleep, 60):
            began.set()
            raise ValueError("no answer")

    _, came = in_thread(fail)
    assert began.wait(30)
    taken(flights, QUESTION)
    eventually(lambda: bool(came))
    assert isinstance(came[0], ValueError)
