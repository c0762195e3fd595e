"""Ctrl-C at a safe point of a thread pool.

An exception that arrives while `concurrent.futures` holds the lock of a future leaves it locked: the worker that has to
deliver its result there waits for ever, and the process with it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

Thing = TypeVar("Thing")
Result = TypeVar("Result")

_PERIOD = 0.2


@contextmanager
def interruptible_wait() -> Iterator[Callable[[Collection[Future[Any]]], set[Future[Any]]]]:
    """Give a function that waits for the first of some futures and is where Ctrl-C takes effect.

    The function returns those that are done and raises `KeyboardInterrupt` after the first Ctrl-C of the block, as does
    the end of the block. A second one is raised wherever the program is. Outside the main thread, where no signal
    arrives, the function just waits.
    """
    noted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and before is not None

    def note(number: int, frame: FrameType | None) -> None:
        noted.set()
        signal.signal(signal.SIGINT, before)

    def first_of(futures: Collection[Future[Any]]) -> set[Future[Any]]:
        while True:
            done, _ = wait(futures, timeout=_PERIOD, return_when=FIRST_COMPLETED)
            if noted.is_set():
                raise KeyboardInterrupt
            if done or not futures:
                return done

    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield first_of
        if noted.is_set():
            raise KeyboardInterrupt
    finally:
        if ours:
            signal.signal(signal.SIGINT, before)


def map_in_threads(
    function: Callable[[Thing], Result], things: Sequence[Thing], workers: int, halt: Callable[[str], None]
) -> Iterator[Result]:
    """Results in the order of `things`, each as soon as it and those before it are there.

    Args:
        workers: Threads, at least 1.
        halt: Called on Ctrl-C, so that what is under way ends soon (`Ledger.stop`).

    Raises:
        Whatever `function` raises first; what has not begun by then is not begun.
    """
    with interruptible_wait() as first_of, ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(function, thing) for thing in things]
        try:
            for future in futures:
                first_of([future])
                yield future.result()
        except BaseException as error:
            for future in futures:
                future.cancel()
            if isinstance(error, KeyboardInterrupt):
                halt("interrupted")
            raise
