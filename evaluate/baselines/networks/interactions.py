"""Interactions as numbered rows of users and items, and the held-out part of them that stops a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import sparse

from programs.prior.scorers import Histories

HistoryRows = NDArray[np.int64]
"""Rows of items, each once, oldest first."""


@dataclass(frozen=True)
class Interactions:
    """Training data of recommenders in which an item counts once for a user.

    Attributes:
        users: Row by user id; users without a history have none.
        items: Row by item id, of the items with users.
        histories: Items of every user by the time of the last purchase.
    """

    users: dict[str, int]
    items: dict[str, int]
    histories: list[HistoryRows]

    @classmethod
    def of(cls, histories: Histories) -> Self:
        """Number users and items in the order of first appearance."""
        users = {user: row for row, user in enumerate(user for user, history in histories.items() if history)}
        items: dict[str, int] = {}
        for user in users:
            for item in histories[user]:
                items.setdefault(item, len(items))
        return cls(users, items, [distinct_rows(histories[user], items) for user in users])

    def matrix(self, dtype: DTypeLike) -> sparse.csr_matrix[Any]:
        """1 where a user has an item, shape (users, items)."""
        return user_item_matrix(self.histories, len(self.items), dtype)


def pairs_of(histories: Sequence[HistoryRows]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The user and the item of each of n interactions, both of shape (n,)."""
    users = np.repeat(np.arange(len(histories)), [len(own) for own in histories])
    return users, np.concatenate(list(histories))


def user_item_matrix(histories: Sequence[HistoryRows], items: int, dtype: DTypeLike) -> sparse.csr_matrix[Any]:
    """1 where a user has an item, shape (users, items)."""
    users, rows = pairs_of(histories)
    return sparse.csr_matrix((np.ones(len(rows), dtype=dtype), (users, rows)), shape=(len(histories), items))


def distinct_rows(history: Sequence[str], rows: Mapping[str, int]) -> HistoryRows:
    """Rows of the known items of a history, each where it was bought last.

    >>> distinct_rows(["a", "b", "a", "new"], {"a": 0, "b": 1}).tolist()
    [1, 0]
    """
    return distinct([rows[item] for item in history if item in rows])


def distinct(rows: Sequence[int]) -> HistoryRows:
    """Each item of a history at its last place."""
    newest_first = dict.fromkeys(reversed(rows))
    return np.array([*newest_first][::-1], dtype=np.int64)


@dataclass(frozen=True)
class LastItems:
    """The last items of some users, held out of the training data; no target of a test user is among them.

    Attributes:
        users: Rows of m users.
        targets: Their last items, shape (m,).
    """

    users: NDArray[np.int64]
    targets: NDArray[np.int64]

    @classmethod
    def of(cls, histories: Sequence[HistoryRows], users: Sequence[int]) -> Self:
        """The last items of these users; see `hold_out_last`."""
        targets = [histories[user][-1] for user in users]
        return cls(np.array(users, dtype=np.int64), np.array(targets, dtype=np.int64))


class Pairs:
    """Users and items of n interactions.

    Args:
        histories: Rows of the items of every user.
        items: Number of items.
    """

    def __init__(self, histories: Sequence[HistoryRows], items: int) -> None:
        self.users, self.rows = pairs_of(histories)
        self._items = items
        self._taken = np.sort(self.users * items + self.rows)

    def negatives(self, users: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """A uniform item for each user; one that they have is drawn once more."""
        drawn = rng.integers(self._items, size=len(users))
        keys = users * self._items + drawn
        again = self._taken[np.searchsorted(self._taken, keys) % len(self._taken)] == keys
        drawn[again] = rng.integers(self._items, size=int(again.sum()))
        return drawn
