"""Ledger whose dollar budget renews every minute and every day."""

from __future__ import annotations

import time
from pathlib import Path

from mllm3rec.serve.limits import DAY_SECONDS, RollingSum, ServiceLimits
from programs.lm.ledger import Budget, Call, Ledger, read_calls
from programs.lm.sliding_window import MINUTE


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
