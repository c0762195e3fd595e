"""Ctrl-C takes effect between two looks at a pool, and nowhere else."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from programs.interrupts import interruptible_wait


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def never() -> Future[int]:
    return Future()


def test_what_is_done_is_given() -> None:
    with interruptible_wait() as first_of, ThreadPoolExecutor(1) as pool:
        done = pool.submit(lambda: 3)
        assert first_of([done, never()]) == {done}
        assert first_of([]) == set()


def test_ctrl_c_is_raised_while_waiting_though_nothing_is_ever_done() -> None:
    reached = []
    with pytest.raises(KeyboardInterrupt), interruptible_wait() as first_of:
        ctrl_c()
        reached.append("the next line")
        first_of([never()])
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
        with interruptible_wait() as first_of:
            seen.append(signal.getsignal(signal.SIGINT))
            done: Future[int] = Future()
            done.set_result(1)
            seen.append(first_of([done]) == {done})

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert seen == [signal.default_int_handler, True]
