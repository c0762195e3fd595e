"""Features of past sales: what was sold up to the user's newest interaction, and never later."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.features import Features
from programs.prior.past_sales import SECONDS_PER_DAY
from programs.prior.scorers import Training
from signatures.rows import Case

WINDOWS = (30, 90, 365)
"""Days before the user's newest interaction."""

_ITEM = 2**42
"""Distance between the keys of two items; times lie below half of it."""


class PastSalesFeatures:
    """Sales of a candidate up to the user's newest interaction.

    `sales.30`, `sales.90`, `sales.365`, `sales.all`: log(1 + sales in that many days). `sold.last`: days since the last
    sale. `sold.first`: days since the first. `trend`: log ratio of the sales of the last 90 days to those of the 275
    days before, as rates. NaN where the history has no date, or for an item that was not sold until then.
    """

    names = (*(f"sales.{days}" for days in WINDOWS), "sales.all", "sold.last", "sold.first", "trend")

    def __init__(self, training: Training) -> None:
        self.rows = {item: row for row, item in enumerate({e.item_id: 0 for own in training.values() for e in own})}
        # One ascending key per sale, item first and time second: a window of an item is then a range of keys.
        keys = [
            self.rows[event.item_id] * _ITEM + event.timestamp
            for own in training.values()
            for event in own
            if event.timestamp is not None
        ]
        self._keys = np.sort(np.array(keys, dtype=np.int64))

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        return self.features_of([case])[0]

    def features_of(self, cases: Sequence[Case]) -> list[Features]:
        """See `BatchSource.features_of`."""
        lengths = [len(case.candidates) for case in cases]
        moments = [max((e.timestamp for e in case.history if e.timestamp is not None), default=-1) for case in cases]
        now = np.repeat(np.array(moments, dtype=np.int64), lengths)
        items = np.array([self.rows.get(item, -1) for case in cases for item in case.candidates], dtype=np.int64)
        return np.split(self._table(items, now), np.cumsum(lengths)[:-1])

    def _table(self, items: NDArray[np.int64], now: NDArray[np.int64]) -> Features:
        first, last = self._before(items, np.zeros_like(now) - 1), self._before(items, now)
        total = last - first
        windows = [last - self._before(items, now - days * SECONDS_PER_DAY) for days in WINDOWS]
        sold = total > 0
        out = np.full((len(items), len(self.names)), np.nan)
        for column, sales in enumerate([*windows, total]):
            out[:, column] = np.log1p(sales)
        at = items * _ITEM
        out[sold, 4] = (now - (self._keys[last - 1] - at if len(self._keys) else 0))[sold] / SECONDS_PER_DAY
        out[sold, 5] = (now[sold] - (self._keys[first[sold]] - at[sold])) / SECONDS_PER_DAY
        recent, year = windows[1], windows[2]
        out[sold, 6] = np.log((recent[sold] / 90 + 0.01) / ((year - recent)[sold] / 275 + 0.01))
        out[(now < 0) | (items < 0)] = np.nan
        return out

    def _before(self, items: NDArray[np.int64], moments: NDArray[np.int64]) -> NDArray[np.int64]:
        """Index after the last sale of each item up to and including a moment."""
        return np.searchsorted(self._keys, items * _ITEM + np.maximum(moments, -1), side="right")
