"""Past sales: how many users bought an item in a number of days before a moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from programs.prior.scorers import Scores, Training
from programs.runtime.errors import InputError
from signatures.types import Interaction

SECONDS_PER_DAY = 86_400

NO_DATES: Iterable[int | None] = repeat(None)
"""The newest dates of any number of histories without dates."""


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
        window = self.window(moment)
        out = np.zeros(len(items))
        for index, item in enumerate(items):
            if (own := self.times.get(item)) is not None:
                first, last = np.searchsorted(own, window, side="right")
                out[index] = last - first
        return out

    def window(self, moment: int) -> tuple[int, int]:
        """The last second before the days up to `moment`, and `moment`."""
        return moment - self.days * SECONDS_PER_DAY, moment


class CatalogueSales:
    """Past sales of all items of one catalogue: the numbers of `PastSales.at`, from one list of all sales by time."""

    def __init__(self, sales: PastSales, items: Sequence[str]) -> None:
        self._sales = sales
        self._items = len(items)
        own = [sales.times.get(item, np.zeros(0, dtype=np.int64)) for item in items]
        times = np.concatenate([np.zeros(0, dtype=np.int64), *own])
        order = np.argsort(times, kind="stable")
        self._times = times[order]
        self._places = np.repeat(np.arange(len(items)), [len(one) for one in own])[order]

    def at(self, moment: int) -> Scores:
        """Sales of every item in the window that ends at `moment` (Unix seconds), shape (items,)."""
        first, last = np.searchsorted(self._times, self._sales.window(moment), side="right")
        return np.bincount(self._places[first:last], minlength=self._items).astype(float)


def newest_date(history: Iterable[Interaction]) -> int | None:
    """The latest date of some interactions, Unix seconds; None if none has a date."""
    return max((event.timestamp for event in history if event.timestamp is not None), default=None)
