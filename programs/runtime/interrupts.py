"""Ctrl-C, SIGTERM and SIGHUP: they end work in threads at a safe point, and soon.

An exception that arrives while `concurrent.futures` holds the lock of a future leaves it locked: its worker, and the
process with it, would wait forever.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, TypeVar

Element = TypeVar("Element")
Result = TypeVar("Result")

GRACE = 3.0
"""Seconds that calls in flight get to end after an interruption; container runtimes kill after ten."""

MAX_WORKERS = 1000
"""Threads of a pool; an operating system refuses to start many thousands."""

_TERMINATIONS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
_PERIOD = 0.2


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP: ends the work as Ctrl-C does.

    Attributes:
        number: Of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


def end_on_termination() -> None:
    """Make SIGTERM and SIGHUP raise `Terminated` in the main thread. Those that are ignored (`nohup`) stay ignored."""
    for number in _TERMINATIONS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


@contextmanager
def interruptible_wait() -> Iterator[Callable[[SimpleQueue[Element]], Element]]:
    """Yields a function that waits for the next element of a queue; only there Ctrl-C takes effect.

    Futures get into the queue with `future.add_done_callback(queue.put)`: `concurrent.futures.wait` would check all of
    them each time. After the first Ctrl-C in the block, the function and the end of the block raise
    `KeyboardInterrupt`; a second Ctrl-C is raised at once. So do SIGTERM and SIGHUP after `end_on_termination`, with
    `Terminated`. Outside the main thread, which alone receives signals, the function just waits.
    """
    caught: list[int] = []
    before = _handlers()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        restore()

    def interrupt() -> None:
        if caught:
            raise KeyboardInterrupt if caught[0] == signal.SIGINT else Terminated(caught[0])

    def next_in(queue: SimpleQueue[Element]) -> Element:
        while True:
            try:
                return queue.get(timeout=0 if caught else _PERIOD)
            except Empty:
                pass
            finally:
                interrupt()

    for number in before:
        signal.signal(number, note)
    try:
        yield next_in
        interrupt()
    finally:
        restore()


def _handlers() -> dict[int, Any]:
    """What ends the work of this thread, by signal."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *_TERMINATIONS)}
    ours = {number: handler for number, handler in handlers.items() if handler is _terminate}
    return ours if handlers[signal.SIGINT] is None else ours | {signal.SIGINT: handlers[signal.SIGINT]}


@contextmanager
def thread_pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """A thread pool that is waited for at the end of the block, unless that ends with an exception: see `let_end`."""
    pool = ThreadPoolExecutor(min(workers, MAX_WORKERS))
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    pool.shutdown()


def end_despite_threads(code: int) -> None:
    """End the process with an exit code if other threads go on for `GRACE` seconds; else return.

    Python would wait for the answer of a server. A ledger counts the call at its upper estimate, as after `kill -9`.
    """
    end = time.monotonic() + GRACE
    others = [one for one in threading.enumerate() if one is not threading.current_thread() and not one.daemon]
    for other in others:
        other.join(max(0.0, end - time.monotonic()))
    if any(other.is_alive() for other in others):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)


def let_end(futures: Collection[Future[Result]], error: BaseException) -> None:
    """Cancel what has not begun and wait for the rest; after an interruption at most `GRACE` seconds."""
    for future in futures:
        future.cancel()
    wait(futures, GRACE if isinstance(error, KeyboardInterrupt) else None)


def map_in_threads(
    function: Callable[[Element], Result], elements: Sequence[Element], workers: int, halt: Callable[[str], None]
) -> Iterator[Result]:
    """Results in the order of `elements`, each as soon as it and those before it are ready.

    Args:
        workers: Threads, at least 1; more than `MAX_WORKERS` count as that.
        halt: Called on an interruption, to end the work under way (`Ledger.stop`).

    Raises:
        Exception: the first one of `function`; elements that have not begun by then are skipped.
    """
    finished: SimpleQueue[Future[Result]] = SimpleQueue()
    with interruptible_wait() as next_in, thread_pool(workers) as pool:
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
            if isinstance(error, KeyboardInterrupt):
                halt("interrupted")
            let_end(futures, error)
            raise
