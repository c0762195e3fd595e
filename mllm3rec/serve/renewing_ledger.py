"""Ledger of the service: a dollar budget that renews every minute and every day, and a file in segments."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path

from mllm3rec.serve import ledger_segments
from mllm3rec.serve.ledger_segments import LedgerSegments
from mllm3rec.serve.limits import DAY_SECONDS, RollingSum, ServiceLimits
from programs.lm.ledger import Budget, Call, Ledger
from programs.lm.sliding_window import MINUTE
from programs.runtime.errors import InputError, one_line

_log = logging.getLogger("mllm3rec.serve")


class RenewingLedger(Ledger):
    """A ledger for a service: what counts are the dollars of the last minute and the last day.

    What its files hold of the last day counts, so a restart is no new budget. A full file is closed and kept, see
    `LedgerSegments`; sums of earlier sessions are not read.

    Args:
        path: JSON Lines file of all calls; None to keep none.
        limits: Dollars a minute and a day.
    """

    def __init__(self, path: Path | None, limits: ServiceLimits) -> None:
        windows = (("minute", MINUTE, limits.usd_per_minute), ("day", DAY_SECONDS, limits.usd_per_day))
        self._windows = [(name, RollingSum(seconds), most) for name, seconds, most in windows if most is not None]
        self._segments = None if path is None else LedgerSegments(path)
        self._closes = True
        # A budget in dollars makes backends refuse models without a known price.
        usd = next((usd for usd in (limits.usd_per_day, limits.usd_per_minute) if usd is not None), None)
        super().__init__(path, Budget(usd=usd))
        if self._segments is not None:
            spending, self._torn = self._segments.restored()
            now = time.time()
            for at, usd_spent in spending.by_time():
                self._count(min(at, now), usd_spent)

    def record(self, call: Call) -> None:
        """See `Ledger.record`."""
        super().record(call)
        if not call.hit:
            with self._lock:
                self._count(call.at, call.at_most_usd)

    def close(self) -> None:
        """See `Ledger.close`."""
        super().close()
        if self._segments is not None:
            self._segments.close()

    def _restore(self, path: Path) -> None:
        """Nothing: the segments are read instead."""

    def _write(self, call: Call) -> None:
        if self._segments is None:
            return
        with self._segments.writing(self._file) as current:
            if not current:
                super().close()  # another process has closed this segment
            super()._write(call)
            full = self._file is not None and os.fstat(self._file.fileno()).st_size >= ledger_segments.SEGMENT_BYTES
        if full and self._closes:
            self._close_segment(self._segments)

    def _close_segment(self, segments: LedgerSegments) -> None:
        super().close()
        try:
            segments.close_if_full()
        except (OSError, InputError) as error:
            # The call that filled it is paid, and must not fail for that. The next start says what is wrong.
            self._closes = False
            _log.error("the ledger stays one file until the service is started again: %s", one_line(error))

    def _count(self, at: float, usd: float) -> None:
        for _, window, _ in self._windows:
            window.add(usd, at)

    def _problem(self, worst_usd: float | None) -> str | None:
        if self._stopped is not None:
            return self._stopped
        for name, window, most in self._windows:
            if window.total(time.time()) + self._reserved_usd + (worst_usd or 0.0) > most:
                return f"the next call might exceed the budget of ${most:.4f} a {name}"
        return None
