"""Budget of one job for workers on several machines: a coordinator leases slices of it, a ledger asks for them.

A slice is a share of what is left, so slices get smaller towards the end, and what other workers hold unspent then is
little. What is leased is gone for this run: a worker that is killed takes its slice along, and the next run counts what
the ledger says. So the budget is never passed, and nobody waits for anybody.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from mllm3rec.stages.failures import SPENT
from programs.lm.ledger import MINUTES_OVER, Budget, Ledger


class Coordinator:
    """What the workers of a job share: the budget, the end, and what the user should know.

    Its methods are coroutines, so that as a Ray actor it answers each worker at once.

    Args:
        budget: What is left for all of them.
        workers: Their number.
    """

    def __init__(self, budget: Budget, workers: int) -> None:
        self._budget = budget
        self._workers = workers
        self._calls = budget.calls or 0
        self._usd = budget.usd or 0.0
        self._until = None if budget.minutes is None else time.monotonic() + 60 * budget.minutes
        self._failure: tuple[str, str] | None = None
        self._over = asyncio.Event()
        self._notes: dict[str, bool] = {}

    async def lease(self, calls: int, usd: float) -> tuple[int, float] | None:
        """A slice with at least so many calls and dollars; None if there is no such slice left.

        Args:
            calls, usd: 0 for what is not needed, of which nothing is leased.
        """
        if calls > self._calls or usd > self._usd:
            return None
        parts = 2 * self._workers
        calls = max(calls, self._calls // parts) if calls else 0
        usd = max(usd, self._usd / parts) if usd else 0.0
        self._calls -= calls
        self._usd -= usd
        return calls, usd

    async def report(self, kind: str, message: str) -> None:
        """Note why the job ends early; the first reason counts. After a spent budget others use up their slices."""
        if kind == SPENT:
            self._failure = self._failure or (kind, f"the budget of this run is spent: {_limits(self._budget)}")
        else:
            self._failure = self._failure or (kind, message)
            self._over.set()

    async def stop(self) -> None:
        """End the job: no worker sends a further call."""
        self._over.set()

    async def failure(self) -> tuple[str, str] | None:
        """Why the job ends early: kind and message."""
        return self._failure

    async def over(self) -> None:
        """Return when workers must send no further call."""
        try:
            left = None if self._until is None else max(0.0, self._until - time.monotonic())
            await asyncio.wait_for(self._over.wait(), left)
        except TimeoutError:
            self._failure = self._failure or (SPENT, MINUTES_OVER)
            self._over.set()

    async def note(self, text: str) -> None:
        """Keep a message for the user, each text once."""
        self._notes.setdefault(text, True)

    async def new_notes(self) -> list[str]:
        """The messages since the last time."""
        new = [text for text, is_new in self._notes.items() if is_new]
        self._notes = dict.fromkeys(self._notes, False)
        return new


class LeasedLedger(Ledger):
    """The ledger of a worker that leases its budget in slices.

    Args:
        path: Its file.
        budget: Says what is limited; how much is leased.
        lease: `Coordinator.lease`, waited for.
    """

    def __init__(
        self, path: Path | None, budget: Budget, lease: Callable[[int, float], tuple[int, float] | None]
    ) -> None:
        super().__init__(
            None, Budget(usd=None if budget.usd is None else 0.0, calls=None if budget.calls is None else 0)
        )
        self.path = path
        self._lease = lease
        self._nothing_left = False

    def try_reserve(self, worst_usd: float | None) -> bool:
        """See `Ledger.try_reserve`; leases another slice first, if this one does not suffice."""
        with self._lock:
            if not self._nothing_left and not self.stopped and self._problem(worst_usd) is not None:
                self._lease_more(worst_usd or 0.0)
            return super().try_reserve(worst_usd)

    def _lease_more(self, worst_usd: float) -> None:
        total, budget = self.total(), self.budget
        calls, usd = 0, 0.0
        if budget.calls is not None:
            calls = max(0, total.calls + self._reserved_calls + 1 - budget.calls)
        if budget.usd is not None:
            committed = (total.usd or 0.0) + self._assumed_usd + self._reserved_usd
            usd = max(0.0, committed + worst_usd - budget.usd)
        slice_ = self._lease(calls, usd)
        if slice_ is None:
            self._nothing_left = True
            return
        self.budget = Budget(
            usd=None if budget.usd is None else budget.usd + slice_[1],
            calls=None if budget.calls is None else budget.calls + slice_[0],
        )


def _limits(budget: Budget) -> str:
    """The limits of a budget for people.

    >>> _limits(Budget(usd=1.5, calls=20))
    '$1.5000, 20 calls'
    """
    usd = [] if budget.usd is None else [f"${budget.usd:.4f}"]
    calls = [] if budget.calls is None else [f"{budget.calls:,} calls"]
    return ", ".join(usd + calls)
