"""Candidate lists as arrays: what the feature sources compute on, for many cases at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from signatures.rows import Case

LISTED_ITEMS = 20
"""Number of last items of a history that sources look at."""

ItemRows = NDArray[np.intp]
FeatureColumns = NDArray[np.float64]


@dataclass(frozen=True)
class ItemIndex:
    """A row number for every item; -1, the last row of an array over rows, stands for items that have none.

    Attributes:
        rows: Row by item id, from 0 to n - 1. Arrays over rows have n + 1 entries.
    """

    rows: dict[str, int]

    @classmethod
    def of(cls, items: Iterable[str]) -> ItemIndex:
        """Rows in the order of the items; repeated ones count once."""
        return cls({item: row for row, item in enumerate(dict.fromkeys(items))})

    @property
    def size(self) -> int:
        """Entries of an array over rows."""
        return len(self.rows) + 1

    def of_items(self, items: Iterable[str]) -> ItemRows:
        """Rows of items; -1 for those that have none."""
        return np.array([self.rows.get(item, -1) for item in items], dtype=np.intp)

    def rows_in(self, other: Mapping[str, int]) -> ItemRows:
        """An array over rows: the rows of the items in another table; -1 for items that it has not, and for no item.

        >>> ItemIndex.of("ab").rows_in({"b": 7}).tolist()
        [-1, 7, -1]
        """
        return np.array([other.get(item, -1) for item in self.rows] + [-1], dtype=np.intp)


@dataclass(frozen=True)
class Lists:
    """Candidate lists of L cases with n candidates in all.

    Attributes:
        cases: The cases, without targets.
        owner: Shape (n,): number of the case that a candidate belongs to.
        candidates: Shape (n,): row of the candidate, or -1.
        histories: Shape (L, LISTED_ITEMS): rows of the last items, the newest first; -1 for unknown items and no item.
        moments: Shape (L,): time of the newest interaction in Unix seconds; NaN without dates.
    """

    cases: Sequence[Case]
    owner: ItemRows
    candidates: ItemRows
    histories: ItemRows
    moments: FeatureColumns

    @classmethod
    def of(cls, cases: Sequence[Case], index: ItemIndex) -> Lists:
        """The lists of cases; targets are not looked at."""
        owner = np.repeat(np.arange(len(cases)), [len(case.candidates) for case in cases])
        candidates = index.of_items(item for case in cases for item in case.candidates)
        histories = np.full((len(cases), LISTED_ITEMS), -1, dtype=np.intp)
        moments = np.full(len(cases), np.nan)
        for number, case in enumerate(cases):
            recent = index.of_items(case.item_ids[: -LISTED_ITEMS - 1 : -1])
            histories[number, : len(recent)] = recent
            dates = [event.timestamp for event in case.history if event.timestamp is not None]
            if dates:
                moments[number] = max(dates)
        return cls(cases, owner, candidates, histories, moments)

    @cached_property
    def pairs(self) -> tuple[ItemRows, ItemRows]:
        """Every known candidate with every known item of its history: places in `candidates`, places in the history."""
        known = (self.candidates >= 0)[:, None] & (self.histories >= 0)[self.owner]
        places, ages = np.nonzero(known)
        return places, ages

    def similarities(self, values: NDArray[np.floating]) -> FeatureColumns:
        """Values of the pairs in shape (n, LISTED_ITEMS); NaN where there is no pair."""
        out = np.full((len(self.candidates), LISTED_ITEMS), np.nan)
        out[self.pairs] = values
        return out


class Source(Protocol):
    """Computes numeric features of the candidates of many lists, without their targets."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the k features."""
        ...

    def features(self, lists: Lists) -> FeatureColumns:
        """Shape (n, k); NaN for unknown values. A list's features do not depend on the other lists. Thread-safe."""
        ...
