"""Scorers: popularity, item-kNN and content similarity, each a function of a history and its candidates."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from programs.runtime.errors import InputError
from signatures.rows import Case
from signatures.types import Interaction

Scores = NDArray[np.float64]


Histories = Mapping[str, Sequence[str]]
"""Item ids by user, oldest first: only interactions before the user's target."""

Training = Mapping[str, Sequence[Interaction]]
"""Training data: interactions by user, oldest first, only those before the user's target."""


def histories_of(training: Training) -> dict[str, tuple[str, ...]]:
    """The item ids of training data."""
    return {user: tuple(event.item_id for event in events) for user, events in training.items()}


class Scorer(Protocol):
    """Scores candidates for a history."""

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> Scores:
        """Score n candidates.

        Args:
            history: Item ids, oldest first; may be empty.
            candidates: n item ids, known to the scorer or not.

        Returns:
            n finite scores, higher is better, comparable within this call only.
        """
        ...


@runtime_checkable
class CompositeScorer(Scorer, Protocol):
    """A scorer whose score is computed from named parts, for many cases at once."""

    def parts_of(self, cases: Sequence[Case]) -> list[dict[str, Scores]]:
        """The parts' raw scores by name, each of length n; a case's parts depend on that case alone."""
        ...

    def combine(self, parts: Mapping[str, Scores]) -> Scores:
        """The scores of the candidates of one case, from its parts."""
        ...


def case_of(history: Sequence[str], candidates: Sequence[str]) -> Case:
    """A case of an unnamed user, without dates."""
    events = tuple(Interaction.model_construct(item_id=item, rating=None, timestamp=None) for item in history)
    return Case.model_construct(user_id="", history=events, candidates=tuple(candidates), target=None, metadata={})


def scores_of(scorer: Scorer, case: Case) -> Scores:
    """The scores of the candidates of a case; a composite scorer sees the dates of the history, too."""
    if isinstance(scorer, CompositeScorer):
        return scorer.combine(scorer.parts_of([case])[0])
    return scorer.scores(case.item_ids, case.candidates)


class Popularity:
    """Number of users with the item in their history.

    >>> Popularity.fit({"u": ["a", "b"], "v": ["a"]}).scores([], ["a", "b", "c"]).tolist()
    [2.0, 1.0, 0.0]
    """

    def __init__(self, counts: Mapping[str, int]) -> None:
        self.counts = dict(counts)

    @classmethod
    def fit(cls, histories: Histories) -> Self:
        """Count users per item; a repeated purchase counts once."""
        counts: dict[str, int] = {}
        for history in histories.values():
            for item in set(history):
                counts[item] = counts.get(item, 0) + 1
        return cls(counts)

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> Scores:
        """See `Scorer.scores`."""
        return np.array([self.counts.get(item, 0) for item in candidates], dtype=float)


class ItemKNN:
    """Item-to-item cosine over the items' users, summed over the recent history with recency decay.

    With n_i users of item i and n_ij users of both, cos(i, j) = n_ij / sqrt(n_i n_j). The score of candidate c is
    the sum of decay^age * cos(h, c) over the last `items_last` history items h, where the newest has age 0.
    No item-item matrix is built: the time per case grows with the number of users of its items.

    Args:
        users: Users of each item as distinct indices from 0, at least one per item: the rows of the sparse binary
            item-user matrix.
    """

    tie_weight = 1e-6
    """Weight of popularity as tie-breaker: below every relevant difference in cosine sums."""

    def __init__(self, users: Mapping[str, NDArray[np.int64]], items_last: int = 20, decay: float = 0.7) -> None:
        if items_last < 1 or not 0 < decay <= 1:
            raise InputError(f"item-kNN: items_last={items_last} must be >= 1 and decay={decay} in (0, 1]")
        self.users = dict(users)
        self.items_last = items_last
        self.decay = decay
        self._n_users = max((int(indices.max()) + 1 for indices in self.users.values()), default=0)
        self._most_users = max((len(indices) for indices in self.users.values()), default=1)

    @classmethod
    def fit(cls, histories: Histories, items_last: int = 20, decay: float = 0.7) -> Self:
        """Collect the users of every item; a repeated purchase counts once.

        Raises:
            InputError: `items_last` or `decay` is out of range.
        """
        users: dict[str, list[int]] = {}
        for user, history in enumerate(histories.values()):
            for item in set(history):
                users.setdefault(item, []).append(user)
        return cls({item: np.array(own, dtype=np.int64) for item, own in users.items()}, items_last, decay)

    def similarity(self, history: Sequence[str], candidates: Sequence[str]) -> Scores:
        """The decayed cosine sums, shape (n,), without the popularity term; 0 for unknown candidates."""
        # The history as one vector over users; its product with a candidate's row is the sum over history items.
        neighbours = np.zeros(self._n_users)
        for age, item in enumerate(reversed(history[-self.items_last :])):
            if (users := self.users.get(item)) is not None:
                neighbours[users] += self.decay**age / np.sqrt(len(users))
        known = [index for index, item in enumerate(candidates) if item in self.users]
        out = np.zeros(len(candidates))
        if known:
            rows = [self.users[candidates[index]] for index in known]
            lengths = np.array([len(row) for row in rows])
            starts = np.cumsum(lengths) - lengths
            out[known] = np.add.reduceat(neighbours[np.concatenate(rows)], starts) / np.sqrt(lengths)
        return out

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> Scores:
        """The decayed cosine sums; popularity breaks ties. See `Scorer.scores`."""
        popularity = np.array([len(self.users.get(item, ())) for item in candidates]) / self._most_users
        return self.similarity(history, candidates) + self.tie_weight * popularity


@dataclass(frozen=True)
class Neighbours:
    """Content neighbours of an item: rows of `ContentSimilarity.matrix`, and their weights, both of shape (k,)."""

    rows: NDArray[np.intp]
    weights: NDArray[np.float64]


NEIGHBOURS = 50

_BLOCK = 64
"""Items per matrix product. Always as many, so that an item's cosines do not depend on what else is asked for."""


class ContentSimilarity:
    """Mean cosine to the most similar items of the recent history.

    Items without a vector are left out of the history and scored 0 as candidates; `ContentSimilarity({})` scores
    everything 0.

    Args:
        vectors: Unit vectors of one length by item id, as an `Encoder` gives them.
        items_last: Number of last items of the history that count.
        nearest: Number of the most similar of those in the mean.

    Attributes:
        outside: Unit vectors of history items that are not in the catalogue, such as free texts of new users, by id.
    """

    def __init__(self, vectors: Mapping[str, NDArray[np.floating]], items_last: int = 20, nearest: int = 3) -> None:
        if items_last < 1 or nearest < 1:
            raise InputError(f"content similarity: items_last={items_last} and nearest={nearest} must be >= 1")
        self.rows = {item: row for row, item in enumerate(vectors)}
        self.matrix = np.stack(list(vectors.values())) if vectors else np.zeros((0, 0), dtype=np.float32)
        self.items_last = items_last
        self.nearest = nearest
        self.outside: Mapping[str, NDArray[np.floating]] = {}
        self._neighbours: dict[str, Neighbours] = {}

    @classmethod
    def of(cls, items: Iterable[str], matrix: NDArray[np.floating]) -> Self:
        """The same from n item ids and a matrix of their vectors, shape (n, d), which is not copied."""
        content = cls({})
        content.rows = {item: row for row, item in enumerate(items)}
        content.matrix = matrix
        return content

    def with_vector(self, item: str, vector: NDArray[np.floating] | None) -> ContentSimilarity:
        """The same with another vector of one item; None for an item without a text."""
        vectors: dict[str, NDArray[np.floating]] = {one: self.matrix[row] for one, row in self.rows.items()}
        if vector is not None:
            vectors[item] = vector
        else:
            vectors.pop(item, None)
        return ContentSimilarity(vectors, self.items_last, self.nearest)

    def beside(self, outside: Mapping[str, NDArray[np.floating]]) -> Self:
        """The same with other `outside`; all else is shared."""
        other = copy.copy(self)
        other.outside = outside
        return other

    def vector_outside(self, item: str) -> NDArray[np.floating] | None:
        """The vector of an item that is not in the catalogue; None if it is, or is not known."""
        return None if item in self.rows else self.outside.get(item)

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> Scores:
        """See `Scorer.scores`; between -1 and 1."""
        known = {index: self.rows[item] for index, item in enumerate(candidates) if item in self.rows}
        out = np.zeros(len(candidates))
        if known:
            out[[*known]] = self.similarity(history, self.matrix[[*known.values()]])
        return out

    def similarity(self, history: Sequence[str], vectors: NDArray[np.floating]) -> Scores:
        """The scores of n candidates with unit vectors of shape (n, d); 0 if no item of the history has a vector."""
        recent = history[-self.items_last :]
        rows = [self.rows[item] for item in recent if item in self.rows]
        outside = (self.vector_outside(item) for item in recent) if self.outside else ()
        others = [vector for vector in outside if vector is not None]
        if not rows and not others:
            return np.zeros(len(vectors))
        own = self.matrix[rows] if rows else self.matrix[:0]
        cosines = vectors @ (np.vstack([own, *others]) if others else own).T
        mean: Scores = np.sort(cosines, axis=1)[:, -self.nearest :].mean(axis=1)
        return mean

    def neighbours_of(self, items: Iterable[str]) -> dict[str, Neighbours]:
        """The `NEIGHBOURS` other items with the nearest texts, weighted by cosine to the power of three, 0 if negative.

        Found when first asked for; many items at once are faster than one at a time. Thread-safe: two threads may do
        the same work, with the same result.

        Args:
            items: Ids; those without a vector are left out.
        """
        asked = [item for item in dict.fromkeys(items) if item in self.rows]
        missing = [item for item in asked if item not in self._neighbours]
        for start in range(0, len(missing), _BLOCK):
            self._find_neighbours(missing[start : start + _BLOCK])
        return {item: self._neighbours[item] for item in asked}

    def _find_neighbours(self, items: Sequence[str]) -> None:
        own = np.array([self.rows[item] for item in items])
        block = np.zeros((_BLOCK, self.matrix.shape[1]), dtype=self.matrix.dtype)
        block[: len(own)] = self.matrix[own]
        cosines = (block @ self.matrix.T)[: len(own)]
        cosines[np.arange(len(own)), own] = -np.inf
        k = min(NEIGHBOURS, len(self.rows) - 1)
        nearest = np.argpartition(cosines, -k, axis=1)[:, -k:] if k else np.zeros((len(own), 0), dtype=np.intp)
        weights = np.clip(np.take_along_axis(cosines, nearest, axis=1).astype(float), 0, None) ** 3
        for item, rows, own_weights in zip(items, nearest, weights, strict=True):
            self._neighbours[item] = Neighbours(rows, own_weights)
