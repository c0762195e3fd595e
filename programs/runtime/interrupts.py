"""Thread pool that Ctrl-C can interrupt at a safe point.

An exception that arrives while `concurrent.futures` holds the lock of a future leaves it locked: its worker, and the
process with it, would wait forever.
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

Element = TypeVar("Element")
Result = TypeVar("Result")

MAX_WORKERS = 1000
"""Threads of a pool; an operating system refuses to start many thousands."""

_PERIOD = 0.2


@contextmanager
def interruptible_wait() -> Iterator[Callable[[SimpleQueue[Element]], Element]]:
    """Yields a function that waits for the next element of a queue; only there Ctrl-C takes effect.

    Futures get into the queue with `future.add_done_callback(queue.put)`: `concurrent.futures.wait` would check all of
    them each time. After the first Ctrl-C in the block, the function and the end of the block raise
    `KeyboardInterrupt`; a second Ctrl-C is raised at once. Outside the main thread, which alone receives signals, the
    function just waits.
    """
    interrupted = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    in_main_thread = threading.current_thread() is threading.main_thread() and before is not None

    def note(number: int, frame: FrameType | None) -> None:
        interrupted.set()
        signal.signal(signal.SIGINT, before)

    def next_in(queue: SimpleQueue[Element]) -> Element:
        while True:
            try:
                return queue.get(timeout=0 if interrupted.is_set() else _PERIOD)
            except Empty:
                pass
            finally:
                if interrupted.is_set():
                    raise KeyboardInterrupt

    if in_main_thread:
        signal.signal(signal.SIGINT, note)
    try:
        yield next_in
        if interrupted.is_set():
            raise KeyboardInterrupt
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, before)


def map_in_threads(
    function: Callable[[Element], Result], elements: Sequence[Element], workers: int, halt: Callable[[str], None]
) -> Iterator[Result]:
    """Results in the order of `elements`, each as soon as it and those before it are ready.

    Args:
        workers: Threads, at least 1; more than `MAX_WORKERS` count as that.
        halt: Called on Ctrl-C, to end the work under way (`Ledger.stop`).

    Raises:
        Exception: the first one of `function`; elements that have not begun by then are skipped.
    """
    finished: SimpleQueue[Future[Result]] = SimpleQueue()
    with interruptible_wait() as next_in, ThreadPoolExecutor(min(workers, MAX_WORKERS)) as pool:
        futures = [pool.submit(function, element) for element in elements]
        try:
            for future in futures:
                future.add_done_callback(finished.put)
            done_futures: set[Future[Result]] = set()
            for future in futures:
                while future not in done_futures:
                    done_futures.add(next_in(finished))
                yield future.result()
        except BaseException as error:
            for future in futures:
                future.cancel()
            if isinstance(error, KeyboardInterrupt):
                halt("interrupted")
            raise
