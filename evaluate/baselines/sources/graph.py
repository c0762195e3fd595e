"""Collaborative similarity of a candidate to the history: one step, two steps, and through content neighbours."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from evaluate.baselines.sources.lists import LISTED_ITEMS, FeatureColumns, ItemIndex, Lists
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
        self.walk = RandomWalk(histories, index.rows)
        self.content = content
        self._items = list(index.rows)
        self._column = np.array([self.walk.columns[item] for item in index.rows] + [-1], dtype=np.intp)
        self._content = np.array([content.rows.get(item, -1) for item in index.rows] + [-1], dtype=np.intp)
        self._column_of_content = np.array([self.walk.columns.get(item, -1) for item in content.rows], dtype=np.intp)
        self._to_users = self.walk.to_users.astype(np.float32)
        self._cosines = self._to_users.T.tocsr()
        self._to_items = self.walk.to_items.astype(np.float32)

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        columns = self._column[lists.candidates]
        start = self._start(lists, LISTED_ITEMS)
        users = start @ self._to_users
        newest = self._start(lists, 1) @ self._to_users @ self._cosines
        once = users @ self._to_items
        twice = _dense(self.walk.scores([case.item_ids for case in lists.cases]))
        popularity = np.append(self.walk.users, 0.0)[columns]
        reached = [_dense(one)[lists.owner, columns] for one in (users @ self._cosines, newest, once)]
        parts = [*reached, twice[lists.owner, columns], self._via(lists, twice)]
        return np.column_stack([*(np.sqrt(part) for part in parts), np.log1p(popularity)])

    def _start(self, lists: Lists, last: int) -> sparse.csr_matrix:
        """The last items of each history with their weights, shape (lists, items)."""
        own, ages = np.nonzero(lists.histories[:, :last] >= 0)
        columns = self._column[lists.histories[own, ages]]
        shape = (len(lists.cases), len(self.walk.columns))
        return sparse.csr_matrix((_DECAY ** ages.astype(np.float32), (own, columns)), shape=shape, dtype=np.float32)

    def _via(self, lists: Lists, reached: FeatureColumns) -> FeatureColumns:
        out = np.zeros(len(lists.candidates))
        (known,) = np.nonzero(self._content[lists.candidates] >= 0)
        if known.size:
            distinct, place = np.unique(lists.candidates[known], return_inverse=True)
            names = [self._items[row] for row in distinct]
            found = self.content.neighbours_of(names)
            rows = np.stack([found[name].rows for name in names])
            weights = np.stack([found[name].weights for name in names])
            totals = np.maximum(weights.sum(axis=1), 1e-12)
            columns = self._column_of_content[rows]
            sums = (weights[place] * reached[lists.owner[known][:, None], columns[place]]).sum(axis=1)
            out[known] = sums / totals[place]
        return out


def _dense(scores: sparse.csr_matrix | FeatureColumns) -> FeatureColumns:
    """Scores of all items with a last column of zeros, which column -1 means."""
    values = scores.toarray() if sparse.issparse(scores) else scores
    return np.hstack([values, np.zeros((len(values), 1), dtype=values.dtype)])
