"""Past sales of a candidate, up to the user's newest interaction."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.sources.lists import FeatureColumns, ItemIndex, Lists
from programs.prior.past_sales import SECONDS_PER_DAY
from programs.prior.scorers import Training

_BEFORE_ALL = -1e18

WINDOWS = (30, 90, 365)
"""Days before the user's newest interaction, that moment included."""


class Past:
    """Sales in time windows, the days since the first and the last sale, and whether sales rise.

    `sales.30`, `sales.90`, `sales.365`, `sales.all`: log(1 + sales). `since`: log(1 + days since the last sale).
    `age`: log(1 + days since the first). `trend`: `sales.90` minus log(1 + a quarter of the sales of 365 days). A sale
    after the user's newest interaction never counts. NaN for users without dates; `since` and `age` are NaN for items
    that nobody bought so far.
    """

    names = (*(f"sales.{days}" for days in WINDOWS), "sales.all", "since", "age", "trend")

    def __init__(self, training: Training, index: ItemIndex) -> None:
        dated = [event for events in training.values() for event in events if event.timestamp is not None]
        rows = index.of_items(event.item_id for event in dated)
        times = np.array([event.timestamp for event in dated], dtype=float)
        order = np.lexsort((times, rows))
        # Item after item, each with its times in ascending order; NumPy orders complex numbers in the same way.
        self._sales = rows[order] + 1j * times[order]
        self._times = times[order]

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        moments = lists.moments[lists.owner]
        dated = ~np.isnan(moments) & (lists.candidates >= 0)
        now = np.where(dated, moments, 0.0)
        until = self._sold_by(lists, now)
        first = np.searchsorted(self._sales, lists.candidates + 1j * _BEFORE_ALL)
        counts = [until - self._sold_by(lists, now - days * SECONDS_PER_DAY) for days in WINDOWS]
        total = until - first
        times = np.append(self._times, np.nan)
        sold = total > 0
        last_sale = np.where(sold, times[np.where(sold, until - 1, -1)], np.nan)
        first_sale = np.where(sold, times[np.where(sold, first, -1)], np.nan)
        logs = np.log1p(np.column_stack([*counts, total]))
        days = np.log1p(np.column_stack([now - last_sale, now - first_sale]) / SECONDS_PER_DAY)
        trend = logs[:, 1] - np.log1p(counts[2] / 4)
        out = np.column_stack([logs, days, trend])
        out[~dated] = np.nan
        return out

    def _sold_by(self, lists: Lists, moments: FeatureColumns) -> NDArray[np.intp]:
        return np.searchsorted(self._sales, lists.candidates + 1j * moments, side="right").astype(np.intp)
