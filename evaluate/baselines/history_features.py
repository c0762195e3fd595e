"""Features of the history alone: how long it is, and how often the user buys."""

from __future__ import annotations

import numpy as np

from evaluate.baselines.features import Features
from programs.prior.past_sales import SECONDS_PER_DAY
from signatures.rows import Case


class PurchaseTimes:
    """Days between purchases: `gap.last` before the newest, `gap.mean`, and `span` of all; NaN if unknown.

    Equal for all candidates of a list: they tell the trees when other features are reliable.
    """

    names = ("gap.last", "gap.mean", "span")

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        days = np.array([e.timestamp for e in case.history if e.timestamp is not None], dtype=float) / SECONDS_PER_DAY
        own = np.full(3, np.nan)
        if len(days) > 1:
            gaps = np.diff(days)
            own[:] = gaps[-1], gaps.mean(), days[-1] - days[0]
        return np.tile(own, (len(case.candidates), 1))
