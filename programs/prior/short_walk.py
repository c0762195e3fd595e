"""Random walk of two steps over a large catalogue: item-to-item steps made once, the strongest of each item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from programs.prior.random_walk import RandomWalk

KEPT_STEPS = 1000
"""Steps kept from each item."""

STARTS = 2000
"""Items, the strongest of the first step, from which the second starts."""

_ENTRIES = 20_000_000
"""Entries of a block of the item-item matrix, about, before the weak ones are left out."""


class ShortWalk:
    """`RandomWalk` over a large catalogue, with the `KEPT_STEPS` strongest steps of each item.

    T of `RandomWalk` is computed once, item to item. A popular item is one step from most of the catalogue, so its
    weaker steps are left out; where no item has that many, the walk is that of `RandomWalk`.

    Args:
        steps: Steps kept from each item, the strongest.
        starts: Items from which the second step starts, the strongest of the first.
    """

    def __init__(self, walk: RandomWalk, steps: int = KEPT_STEPS, starts: int = STARTS) -> None:
        self.walk = walk
        self.starts = starts
        self._steps = sparse.vstack([_strongest(block, steps) for block in _item_steps(walk)], format="csr")

    @property
    def nbytes(self) -> int:
        """Bytes of the steps kept."""
        return int(self._steps.data.nbytes + self._steps.indices.nbytes + self._steps.indptr.nbytes)

    def reach(self, history: Sequence[str], scores: NDArray[np.float32]) -> NDArray[np.intp]:
        """Write the scores that a history reaches in two steps.

        Args:
            scores: Zeros, one for each column of the walk at least; those reached are changed.

        Returns:
            The columns reached, each once.
        """
        walk = self.walk
        recent = [(walk.columns.get(item, -1), age) for age, item in enumerate(reversed(history[-walk.items_last :]))]
        known = [(column, walk.decay**age) for column, age in recent if column >= 0]
        columns = np.array([column for column, _ in known], dtype=np.intp)
        weights = np.array([weight for _, weight in known], dtype=np.float32)
        self._step(columns, weights, scores)
        once = np.flatnonzero(scores != 0)
        reached = scores[once]
        scores[once] = 0
        if len(once) > self.starts:
            strongest = np.argpartition(reached, -self.starts)[-self.starts :]
            once, reached = once[strongest], reached[strongest]
        self._step(once, reached, scores)
        own = walk.users[columns] == 0  # they keep their weight, see `RandomWalk.scores`
        np.add.at(scores, columns[own], weights[own])
        return np.flatnonzero(scores != 0)

    def _step(self, columns: NDArray[np.intp], weights: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
        starts = self._steps.indptr[columns].astype(np.intp)
        counts = self._steps.indptr[columns + 1] - starts
        places = np.repeat(starts - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        np.add.at(scores, self._steps.indices[places], self._steps.data[places] * np.repeat(weights, counts))


def _item_steps(walk: RandomWalk) -> Iterator[sparse.csr_matrix]:
    """T block by block of rows."""
    to_users = walk.to_users.astype(np.float32)
    to_items = walk.to_items.astype(np.float32)
    entries = np.add.reduceat(
        np.append(np.diff(to_items.indptr)[to_users.indices], 0), np.minimum(to_users.indptr[:-1], to_users.nnz)
    )
    block = (np.cumsum(np.where(np.diff(to_users.indptr) > 0, entries, 0)) // _ENTRIES).astype(np.intp)
    bounds = [0, *(1 + np.flatnonzero(np.diff(block))), to_users.shape[0]]
    for start, end in pairwise(bounds):
        yield (to_users[start:end] @ to_items).tocsr()


def _strongest(steps: sparse.csr_matrix, k: int) -> sparse.csr_matrix:
    """The k largest entries of each row."""
    owner = np.repeat(np.arange(steps.shape[0]), np.diff(steps.indptr))
    long = np.diff(steps.indptr)[owner] > k
    order = np.lexsort((-steps.data[long], owner[long]))
    place = np.flatnonzero(long)[order]
    within = np.arange(len(place)) - np.searchsorted(owner[place], owner[place])
    kept = np.sort(np.concatenate([np.flatnonzero(~long), place[within < k]]))
    return sparse.csr_matrix((steps.data[kept], (owner[kept], steps.indices[kept])), shape=steps.shape)
