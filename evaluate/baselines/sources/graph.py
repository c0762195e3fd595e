"""Collaborative similarity of a candidate to the history: one step, two steps, and through content neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from evaluate.baselines.sources.lists import LISTED_ITEMS, FeatureColumns, ItemIndex, ItemRows, Lists
from programs.prior.random_walk import RandomWalk
from programs.prior.scorers import ContentSimilarity, Histories

_DECAY = 0.7


class Graph:
    """Walks from the history over users and items, and the popularity of the candidate.

    `knn`, `knn.newest`: root of the item-kNN's cosine sums, for the whole history and its newest item. `rp3`: root of
    one step in which users with many items count less (RP3-beta with beta .5 on either side). `walk`: root of two such
    steps, see `RandomWalk`. `via`: root of the mean `walk` of the candidate's content neighbours, as in the prior.
    `popularity`: log(1 + users).
    """

    names = ("knn", "knn.newest", "rp3", "walk", "via", "popularity")

    def __init__(self, histories: Histories, content: ContentSimilarity, index: ItemIndex) -> None:
        self.walk = RandomWalk(histories, index.rows, precision=np.float32)
        self._column = index.rows_in(self.walk.columns)
        self._neighbours, self._weights = self._near(content, index)
        # A further last row without entries, which column -1 means.
        nothing = sparse.csr_matrix(np.zeros((1, self.walk.to_users.shape[1]), dtype=np.float32))
        self._users_of = sparse.vstack([self.walk.to_users, nothing], format="csr")
        self._steps_of = sparse.vstack([self.walk.to_items.T, nothing], format="csr")

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        columns = self._column[lists.candidates]
        users = (self._start(lists, LISTED_ITEMS) @ self.walk.to_users).toarray()
        newest = (self._start(lists, 1) @ self.walk.to_users).toarray()
        twice = self.walk.scores([case.item_ids for case in lists.cases])
        near = twice[lists.owner[:, None], self._neighbours[lists.candidates]]
        users_of = self._users_of[columns]
        parts = [
            _products(users_of, users, lists),
            _products(users_of, newest, lists),
            _products(self._steps_of[columns], users, lists),
            np.where(columns >= 0, twice[lists.owner, columns], 0),
            (self._weights[lists.candidates] * near).sum(axis=1),
        ]
        popularity = np.append(self.walk.users, 0.0)[columns]
        return np.column_stack([*(np.sqrt(part) for part in parts), np.log1p(popularity)])

    def _start(self, lists: Lists, last: int) -> sparse.csr_matrix:
        """The last items of each history with their weights, shape (lists, items)."""
        own, ages = np.nonzero(lists.histories[:, :last] >= 0)
        columns = self._column[lists.histories[own, ages]]
        shape = (len(lists.cases), len(self.walk.columns))
        return sparse.csr_matrix((_DECAY ** ages.astype(np.float32), (own, columns)), shape=shape, dtype=np.float32)

    def _near(self, content: ContentSimilarity, index: ItemIndex) -> tuple[ItemRows, NDArray[np.float32]]:
        """Columns of the content neighbours of every item, and their weights, which sum to 1; 0 where there is none."""
        found = content.neighbours_of(index.rows)
        columns = np.array([self.walk.columns.get(item, -1) for item in content.rows], dtype=np.intp)
        k = max((len(near.rows) for near in found.values()), default=0)
        neighbours = np.full((index.size, k), -1, dtype=np.intp)
        weights = np.zeros((index.size, k), dtype=np.float32)
        for item, near in found.items():
            row = index.rows[item]
            neighbours[row] = columns[near.rows]
            weights[row] = np.where(neighbours[row] >= 0, near.weights, 0) / max(near.weights.sum(), 1e-12)
        return neighbours, weights


def _products(rows: sparse.csr_matrix, users: NDArray[np.float32], lists: Lists) -> FeatureColumns:
    """The product of every candidate's row over users, shape (n, users), with its list's row of (lists, users)."""
    candidates = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    products = rows.data * users[lists.owner[candidates], rows.indices]
    sums: FeatureColumns = np.bincount(candidates, products, minlength=rows.shape[0]).astype(float)
    return sums
