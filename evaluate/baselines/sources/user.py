"""Constants of a user: they tell how far the other features can be relied on."""

from __future__ import annotations

import numpy as np

from evaluate.baselines.sources.lists import FeatureColumns, Lists
from programs.prior.past_sales import SECONDS_PER_DAY


class User:
    """Length of the history, and days between interactions.

    `history`: interactions. `span`: days from the first to the newest. `gap`: mean days between two. `gap.newest`: days
    between the last two. Logarithms of 1 + days; NaN without dates.
    """

    names = ("history", "span", "gap", "gap.newest")

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        rows = np.full((len(lists.cases), len(self.names)), np.nan)
        for row, case in zip(rows, lists.cases, strict=True):
            row[0] = len(case.history)
            times = sorted(event.timestamp for event in case.history if event.timestamp is not None)
            if times:
                span = times[-1] - times[0]
                newest = times[-1] - times[-2] if len(times) > 1 else np.nan
                days = np.array([span, span / max(1, len(times) - 1), newest]) / SECONDS_PER_DAY
                row[1:] = np.log1p(days)
        return rows[lists.owner]
