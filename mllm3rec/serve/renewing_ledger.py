"""Ledger whose dollar budget renews every minute and every day, and which sends nothing after a request's deadline."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from mllm3rec.serve.limits import DAY_SECONDS, RollingSum, ServiceLimits
from programs.lm.ledger import Budget, Call, Ledger, read_calls
from programs.lm.sliding_window import MINUTE
from programs.runtime.errors import BudgetExceededError

_UNTIL: ContextVar[float | None] = ContextVar("until", default=None)


class DeadlineError(BudgetExceededError):
    """The deadline of a request has passed, so its next call is not sent."""


@contextmanager
def deadline_at(until: float) -> Iterator[None]:
    """Inside the block no call is sent after `time.monotonic()` has reached `until`; one in flight ends as usual.

    Its answer is paid for, and kept for the next request.
    """
    token = _UNTIL.set(until)
    try:
        yield
    finally:
        _UNTIL.reset(token)


class RenewingLedger(Ledger):
    """A ledger for a service: what counts are the dollars of the last minute and the last day.

    What its file holds of the last day counts, so a restart is no new budget.

    Args:
        path: JSON Lines file of all calls; None to keep none.
        limits: Dollars a minute and a day.
    """

    def __init__(self, path: Path | None, limits: ServiceLimits) -> None:
        # A budget in dollars makes backends refuse models without a known price.
        usd = next((usd for usd in (limits.usd_per_day, limits.usd_per_minute) if usd is not None), None)
        super().__init__(path, Budget(usd=usd))
        windows = (("minute", MINUTE, limits.usd_per_minute), ("day", DAY_SECONDS, limits.usd_per_day))
        self._windows = [(name, RollingSum(seconds), most) for name, seconds, most in windows if most is not None]
        if self._windows and path is not None:
            for call in sorted(read_calls(path), key=lambda one: one.at):
                if call.at > time.time() - DAY_SECONDS and not call.hit:
                    self._count(call)

    def record(self, call: Call) -> None:
        """See `Ledger.record`."""
        super().record(call)
        if not call.hit:
            with self._lock:
                self._count(call)

    def try_reserve(self, worst_usd: float | None) -> bool:
        """See `Ledger.try_reserve`; also raises `DeadlineError` once the deadline of the request has passed."""
        until = _UNTIL.get()
        if until is not None and time.monotonic() >= until:
            raise DeadlineError("the deadline of this request has passed")
        return super().try_reserve(worst_usd)

    def _count(self, call: Call) -> None:
        for _, window, _ in self._windows:
            window.add(call.at_most_usd, call.at)

    def _problem(self, worst_usd: float | None) -> str | None:
        if self._stopped is not None:
            return self._stopped
        for name, window, most in self._windows:
            if window.total(time.time()) + self._reserved_usd + (worst_usd or 0.0) > most:
                return f"the next call might exceed the budget of ${most:.4f} a {name}"
        return None
