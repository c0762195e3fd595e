"""Event loop of programs, in a thread of its own, on which programs run as they are, many users at a time.

The loop that answers HTTP stays free meanwhile: deadlines and health checks are kept while scores are computed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from programs.runtime.greenlets import in_greenlet
from programs.runtime.interrupts import GRACE, Result

_THREADS = 64
"""For questions that only the general path can ask."""


class ProgramLoop:
    """Runs synchronous functions concurrently: each leaves the thread to the others where it waits for a model."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="service")
        self.loop.set_default_executor(self._threads)
        # No daemon, as the threads of executors would then be: `end_despite_threads` leaves daemons out, Python waits.
        self._thread = threading.Thread(target=self.loop.run_forever, name="engine", daemon=False)
        self._thread.start()

    def start(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Begin a call of a function; it may ask models of `BulkBackends`."""
        return self.begin(in_greenlet(function, *arguments))

    def begin(self, coroutine: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Begin a coroutine on this loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def close(self) -> None:
        """End the loop; what is under way is given up. Without it the process does not end."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(GRACE)
        self._threads.shutdown(wait=False, cancel_futures=True)
