"""Budget of one job for several processes of one machine: what all have spent and reserved, in memory that they share.

Each call is reserved in it before it is sent, as in one process. So the budget is never passed, and no process holds a
part of it that another one could use.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from programs.lm.ledger import Budget, Call, Ledger
from programs.runtime.errors import BudgetExceededError

_LOOK = 0.05
"""Seconds until a process looks again whether calls of the others have ended."""

_SPENT_USD, _SPENT_CALLS, _RESERVED_USD, _RESERVED_CALLS = range(4)


class SharedSums:
    """Dollars and calls of all processes. Given to each of them when it is started."""

    def __init__(self) -> None:
        self._sums: Any = multiprocessing.get_context("spawn").Array("d", 4)

    @contextmanager
    def locked(self) -> Iterator[Any]:
        """The four sums, which no other process reads or changes inside the block."""
        with self._sums.get_lock():
            yield self._sums.get_obj()


class SharedLedger(Ledger):
    """The ledger of one of the processes: it writes the calls of this one, and reserves for all.

    Args:
        path: Its file, to which all of them append.
        budget: What is left for all of them together.
        sums: What they have spent and reserved since.
    """

    def __init__(self, path: Path | None, budget: Budget, sums: SharedSums) -> None:
        super().__init__(None, budget)
        self.path = path
        self._sums = sums

    def reserve(self, worst_usd: float | None) -> None:
        """See `Ledger.reserve`; calls that end in other processes wake nobody here."""
        with self._lock:
            while not self.try_reserve(worst_usd):
                self._lock.wait(_LOOK)

    def try_reserve(self, worst_usd: float | None) -> bool:
        """See `Ledger.try_reserve`; False also while calls of other processes may turn out cheaper."""
        with self._lock, self._sums.locked() as sums:
            problem = self._problem(worst_usd)
            if problem is None:
                sums[_RESERVED_CALLS] += 1
                sums[_RESERVED_USD] += worst_usd or 0.0
                return True
            if self.stopped or not sums[_RESERVED_CALLS]:
                raise BudgetExceededError(problem)
            return False

    def release(self, worst_usd: float | None) -> None:
        """See `Ledger.release`."""
        with self._lock, self._sums.locked() as sums:
            sums[_RESERVED_CALLS] -= 1
            sums[_RESERVED_USD] -= worst_usd or 0.0
            self._lock.notify_all()

    def _add(self, call: Call) -> None:
        super()._add(call)
        if not call.hit:
            with self._sums.locked() as sums:
                sums[_SPENT_CALLS] += 1
                sums[_SPENT_USD] += call.at_most_usd

    def _committed(self) -> tuple[float, float, int]:
        with self._sums.locked() as sums:
            return sums[_SPENT_USD], sums[_RESERVED_USD], round(sums[_SPENT_CALLS] + sums[_RESERVED_CALLS])
