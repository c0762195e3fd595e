"""Threads that have begun, clocks that are set by hand, and waiting for what takes a moment."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._looks: Counter[int] = Counter()

    def __call__(self) -> float:
        self._looks[threading.get_ident()] += 1
        return self.now

    def waiting(self) -> int:
        """Other threads that have looked at the clock again: what they came for was not there at once."""
        looks = self._looks.copy()
        del looks[threading.get_ident()]
        return sum(times > 1 for times in looks.values())


def in_thread(work: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """A thread that has begun, and where its result or exception will be."""
    came: list[Any] = []

    def note() -> None:
        try:
            came.append(work())
        except BaseException as error:
            came.append(error)

    thread = threading.Thread(target=note, daemon=True)
    thread.start()
    return thread, came


def in_threads(work: Callable[[int], Any], times: int, threads: int = 8) -> list[BaseException | None]:
    """What each of `times` calls raised, or None."""
    with ThreadPoolExecutor(threads) as pool:
        return [future.exception() for future in [pool.submit(work, n) for n in range(times)]]


def eventually(true: Callable[[], bool]) -> None:
    """Wait until something has happened; fail if it has not after a minute."""
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)
