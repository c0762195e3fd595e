"""Ctrl-C takes effect between two looks at a pool, and nowhere else."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import pytest

from programs.runtime import interrupts
from programs.runtime.interrupts import Terminated, end_on_termination, interruptible_wait, map_in_threads


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_what_is_done_is_given_in_the_order_in_which_it_was_done() -> None:
    done: SimpleQueue[int] = SimpleQueue()
    let_go = threading.Event()
    with interruptible_wait() as next_in, ThreadPoolExecutor(2) as pool:
        pool.submit(lambda: let_go.wait() and done.put(1))
        pool.submit(lambda: done.put(2))
        assert next_in(done) == 2
        let_go.set()
        assert next_in(done) == 1


def test_results_come_in_the_order_of_what_was_asked_for() -> None:
    later = threading.Event()

    def first_waits(n: int) -> int:
        if n:
            later.set()
        else:
            later.wait()
        return 10 * n

    assert list(map_in_threads(first_waits, [0, 1, 2], 2, lambda why: None)) == [0, 10, 20]


def test_ctrl_c_ends_it_though_everything_is_done() -> None:
    halted: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        for n in map_in_threads(lambda n: n, range(8), 8, halted.append):
            time.sleep(0.05)
            if n == 3:
                ctrl_c()
            assert n < 7
    assert halted == ["interrupted"]


def test_what_failed_is_raised_and_what_has_not_begun_is_not_begun() -> None:
    begun = []

    def fails(n: int) -> int:
        begun.append(n)
        time.sleep(0.02)
        raise ValueError(f"{n}")

    with pytest.raises(ValueError, match="0"):
        list(map_in_threads(fails, range(100), 1, lambda why: None))
    assert len(begun) < 100


def test_ctrl_c_is_raised_while_waiting_though_nothing_is_ever_done() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), interruptible_wait() as next_in:
        ctrl_c()
        reached.append("the next line")
        next_in(SimpleQueue())
    assert reached
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_is_not_forgotten_when_nobody_waits_any_more() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible_wait():
        ctrl_c()


def test_the_second_ctrl_c_is_raised_at_once() -> None:
    with pytest.raises(RuntimeError, match="at once"), interruptible_wait():
        ctrl_c()
        try:
            ctrl_c()
        except KeyboardInterrupt:
            raise RuntimeError("at once") from None


def test_in_another_thread_it_waits_and_leaves_the_handler_alone() -> None:
    seen = []

    def elsewhere() -> None:
        with interruptible_wait() as next_in:
            seen.append(signal.getsignal(signal.SIGINT))
            done: SimpleQueue[int] = SimpleQueue()
            done.put(1)
            seen.append(next_in(done) == 1)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler, True]


@pytest.fixture
def terminable() -> Iterator[None]:
    """SIGTERM and SIGHUP as in a command."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGHUP)}
    end_on_termination()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_termination_is_raised_like_ctrl_c(number: signal.Signals, terminable: None) -> None:
    with pytest.raises(Terminated, match=number.name) as ended:
        os.kill(os.getpid(), number)
        time.sleep(30)
    assert ended.value.number == number
    assert isinstance(ended.value, KeyboardInterrupt)


def test_a_termination_takes_effect_while_waiting_and_halts_the_work(terminable: None) -> None:
    halted: list[str] = []
    with pytest.raises(Terminated):
        for n in map_in_threads(lambda n: n, range(8), 8, halted.append):
            if n == 3:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.05)
            assert n < 7
    assert halted == ["interrupted"]


def test_what_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        end_on_termination()
        with interruptible_wait():
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def test_a_call_that_does_not_end_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "GRACE", 0.2)
    let_go = threading.Event()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        for _ in map_in_threads(lambda n: n and let_go.wait(60), range(2), 2, lambda why: None):
            ctrl_c()
    assert time.monotonic() - began < 30
    let_go.set()
