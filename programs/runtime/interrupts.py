"""Thread pool that Ctrl-C can interrupt at a safe point.

An exception that arrives while `concurrent.futures` holds the lock of a future leaves it locked: the worker that has to
deliver its result there waits for ever, and the process with it.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from typing import TypeVar

Thing = TypeVar("Thing")
Result = TypeVar("Result")

_PERIOD = 0.2


@contextmanager
def interruptible_wait() -> Iterator[Callable[[SimpleQueue[Thing]], Thing]]:
    """Give a function that waits for the next thing in a queue and is where Ctrl-C takes effect.

    Futures get there with `future.add_done_callback(queue.put)`: `concurrent.futures.wait` would look at all of them
    for each one that is done. The function raises `KeyboardInterrupt` after the first Ctrl-C of the block, as does
    the end of the block. A second one is raised wherever the program is. Outside the main thread, where no signal
    arrives, the function just waits.
    """
    noted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    ours = threading.current_thread() is threading.main_thread() and before is not None

    def note(number: int, frame: FrameType | None) -> None:
        noted.set()
        signal.signal(signal.SIGINT, before)

    def next_in(queue: SimpleQueue[Thing]) -> Thing:
        while True:
            try:
                return queue.get(timeout=0 if noted.is_set() else _PERIOD)
            except Empty:
                pass
            finally:
                if noted.is_set():
                    raise KeyboardInterrupt

    if ours:
        signal.signal(signal.SIGINT, note)
    try:
        yield next_in
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
    done: SimpleQueue[Future[Result]] = SimpleQueue()
    with interruptible_wait() as next_in, ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(function, thing) for thing in things]
        try:
            for future in futures:
                future.add_done_callback(done.put)
            known: set[Future[Result]] = set()
            for future in futures:
                while future not in known:
                    known.add(next_in(done))
                yield future.result()
        except BaseException as error:
            for future in futures:
                future.cancel()
            if isinstance(error, KeyboardInterrupt):
                halt("interrupted")
            raise
