"""Past sales: how many users bought an item in a number of days before a moment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from programs.prior.scorers import Scores, Training
from programs.runtime.errors import InputError

SECONDS_PER_DAY = 86_400


class PastSales:
    """Sales of items in the `days` up to a moment, that moment included; later sales never count.

    Args:
        times: Ascending times of every item's sales, Unix seconds.
    """

    def __init__(self, times: dict[str, NDArray[np.int64]], days: int) -> None:
        if days < 1:
            raise InputError(f"past sales: days={days} must be >= 1")
        self.times = times
        self.days = days

    @classmethod
    def fit(cls, training: Training, days: int = 365) -> PastSales:
        """Collect the times of all interactions; those without a timestamp are left out.

        Raises:
            InputError: `days` is below 1.
        """
        times: dict[str, list[int]] = {}
        for events in training.values():
            for event in events:
                if event.timestamp is not None:
                    times.setdefault(event.item_id, []).append(event.timestamp)
        return cls({item: np.sort(np.array(own, dtype=np.int64)) for item, own in times.items()}, days)

    def at(self, moment: int, items: Sequence[str]) -> Scores:
        """Sales of n items in the window that ends at `moment` (Unix seconds), shape (n,)."""
        since = moment - self.days * SECONDS_PER_DAY
        out = np.zeros(len(items))
        for index, item in enumerate(items):
            if (own := self.times.get(item)) is not None:
                first, last = np.searchsorted(own, [since, moment], side="right")
                out[index] = last - first
        return out
