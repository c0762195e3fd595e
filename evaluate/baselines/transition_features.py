"""Features of transitions: how much more often a department or brand follows those of the history than chance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

import numpy as np

from evaluate.baselines.features import Features
from programs.prior.scorers import Histories
from signatures.rows import Case
from signatures.types import Item

_SMOOTHING = 1.0
ITEMS_LAST = 5
"""Number of last items of the history that count."""


class Transitions:
    """Smoothed log-odds that a candidate's value follows the history's, over consecutive purchases of all users.

    Two features: after the newest item, and the largest over the last `ITEMS_LAST`. NaN where a value is unknown.

    Args:
        value: The value of an item, such as its leaf category; None if it has none.
        kind: For the names of the features.
    """

    def __init__(
        self, histories: Histories, items: Mapping[str, Item], value: Callable[[Item], str | None], kind: str
    ) -> None:
        self.names = (f"{kind}.after", f"{kind}.after.any")
        found = {item_id: value(item) for item_id, item in items.items()}
        self.values = {item_id: own for item_id, own in found.items() if own is not None}
        self._pairs: Counter[tuple[str, str]] = Counter()
        for history in histories.values():
            known = [self.values[item] for item in history if item in self.values]
            self._pairs.update(pairwise(known))
        self._before = Counter[str]()
        self._after = Counter[str]()
        for (before, after), n in self._pairs.items():
            self._before[before] += n
            self._after[after] += n
        self._total = max(1, self._pairs.total())

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        recent = [self.values[item] for item in case.item_ids[-ITEMS_LAST:] if item in self.values]
        out = np.full((len(case.candidates), 2), np.nan)
        for row, item in enumerate(case.candidates if recent else ()):
            if (own := self.values.get(item)) is not None:
                odds = [self._log_odds(before, own) for before in recent]
                out[row] = odds[-1], max(odds)
        return out

    def _log_odds(self, before: str, after: str) -> float:
        expected = self._before[before] * self._after[after] / self._total
        return float(np.log((self._pairs[before, after] + _SMOOTHING) / (expected + _SMOOTHING)))


def leaf_category(item: Item) -> str | None:
    """The most specific category of an item, with the path to it."""
    return " > ".join(item.category) or None


def brand(item: Item) -> str | None:
    """The brand of an item."""
    return item.brand or None
