"""Map over many elements on an event loop: a synchronous function for each, many of them waiting at a time."""

from __future__ import annotations

import asyncio
import gc
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

from programs.lm.ledger import Ledger
from programs.runtime.greenlets import in_greenlet
from programs.runtime.interrupts import GRACE, Element, Result, Terminated

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_THREADS = 64
"""For questions that only the general path can ask."""


class Loop:
    """An event loop of its own for a bulk; uvloop where it is installed.

    Args:
        ledger: Its `stop` ends the work under way.
    """

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._loop = _new_loop()
        self._threads = ThreadPoolExecutor(_THREADS)
        self._loop.set_default_executor(self._threads)
        self._signalled: list[int] = []
        # A tenth of a call's time would go to looking for garbage among the objects of the imported libraries.
        gc.freeze()

    def map(self, function: Callable[[Element], Result], elements: Iterable[Element], ahead: int) -> Iterator[Result]:
        """Results in the order of `elements`, each as soon as it and those before it are ready.

        Ctrl-C, SIGTERM and SIGHUP stop the ledger: calls in flight get `GRACE` seconds to end, no other is sent.

        Args:
            ahead: How many elements are under way at a time.

        Raises:
            BaseException: the first one of `function`; those under way end, and no other element begins.
            KeyboardInterrupt: after a signal; `Terminated` after SIGTERM and SIGHUP.
        """
        tasks: deque[asyncio.Task[Result]] = deque()
        left = iter(elements)
        with self._signals(tasks):
            try:
                while True:
                    while len(tasks) < ahead and (begun := next(left, _NOTHING)) is not _NOTHING:
                        tasks.append(self._loop.create_task(in_greenlet(function, begun)))
                    if not tasks:
                        return
                    if not tasks[0].done():
                        self._loop.run_until_complete(asyncio.wait([tasks[0]]))
                    self._raise_signalled()
                    yield tasks.popleft().result()
            finally:
                self._end(tasks)
                self._raise_signalled()

    def run(self, awaitable: Any) -> Any:
        """The result of one awaitable."""
        return self._loop.run_until_complete(awaitable)

    def close(self) -> None:
        """Close the loop; nothing may be under way."""
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._threads.shutdown(wait=not self._signalled, cancel_futures=True)
        self._loop.close()
        gc.unfreeze()

    def _end(self, tasks: deque[asyncio.Task[Any]]) -> None:
        """Let what has been sent end; what waits for budget or limits is given up."""
        if not tasks:
            return
        if not self._ledger.stopped:
            self._ledger.stop("the work has ended early")
        self._loop.run_until_complete(asyncio.wait(tasks, timeout=GRACE if self._signalled else None))
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        tasks.clear()

    @contextmanager
    def _signals(self, tasks: deque[asyncio.Task[Any]]) -> Iterator[None]:
        """In the main thread, which alone gets signals: they are noted, and take effect in the loop."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in _SIGNALS}
        heard = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
        for number in heard:
            self._loop.add_signal_handler(number, partial(self._note, number, tasks))
        try:
            yield
        finally:
            for number in heard:
                self._loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    def _note(self, number: int, tasks: deque[asyncio.Task[Any]]) -> None:
        # A second Ctrl-C does not wait; SIGTERM after Ctrl-C is what a parent process sends.
        again = number in self._signalled
        self._signalled.append(number)
        self._ledger.stop("interrupted")
        self._loop.call_later(0.0 if again else GRACE, self._cancel, tasks)

    def _cancel(self, tasks: deque[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()

    def _raise_signalled(self) -> None:
        if self._signalled:
            number = self._signalled[0]
            raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)


_NOTHING: Any = object()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
