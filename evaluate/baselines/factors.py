"""Factor models: score candidates by the product of user and item vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.baseline import rank_by_rows
from signatures.rows import Case, Ranking

FactorVectors = NDArray[np.float32]


@dataclass(frozen=True)
class Factors:
    """A fitted factor model: score(u, i) = user_vectors[u] · item_vectors[i] + item_biases[i].

    Attributes:
        users: Row of every user in the training data.
        user_vectors: Shape (users, d).
        items: Row of every item that can be scored.
        item_vectors: Shape (items, d).
        item_biases: Shape (items,).
        traits: Vectors of length d of metadata values, by `trait_name`; empty if users have no features.
    """

    users: Mapping[str, int]
    user_vectors: FactorVectors
    items: Mapping[str, int]
    item_vectors: FactorVectors
    item_biases: FactorVectors
    traits: Mapping[str, FactorVectors] = field(default_factory=dict)


def trait_name(key: str, value: str) -> str:
    """Name of the user feature for one metadata value.

    >>> trait_name("gender", "F")
    'gender=F'
    """
    return f"{key}={value}"


class FactorRanker:
    """Ranks by a factor model.

    A new user is folded in: the mean of the history's item vectors, scaled to the mean length of the user vectors, and
    averaged with the vectors of the user's metadata. Without known items and metadata only the items' biases count.
    For items that cannot be scored see `unknown_below`.
    """

    def __init__(self, name: str, factors: Factors) -> None:
        self.name = name
        self.factors = factors
        lengths = np.linalg.norm(factors.user_vectors, axis=1)
        self._user_length = float(lengths.mean()) if lengths.size else 0.0

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        factors, user = self.factors, self.user_vector(case)

        def scores_of(rows: NDArray[np.int64]) -> FactorVectors:
            return factors.item_vectors[rows] @ user + factors.item_biases[rows]

        return rank_by_rows(case, factors.items, scores_of, self.name)

    def user_vector(self, case: Case) -> FactorVectors:
        """The vector of the user of a case, shape (d,); a new user is folded in."""
        row = self.factors.users.get(case.user_id)
        return self.factors.user_vectors[row] if row is not None else self.folded_in(case)

    def folded_in(self, case: Case) -> FactorVectors:
        """The vector of a user who is not in the training data, shape (d,)."""
        factors = self.factors
        rows = [factors.items[item] for item in case.item_ids if item in factors.items]
        parts = []
        if rows:
            mean = factors.item_vectors[rows].mean(axis=0)
            parts.append(mean * (self._user_length / max(float(np.linalg.norm(mean)), 1e-12)))
        names = [trait_name(key, value) for key, value in case.metadata.items()]
        parts.extend(factors.traits[name] for name in names if name in factors.traits)
        if not parts:
            return np.zeros(factors.item_vectors.shape[1], dtype=np.float32)
        return np.mean(parts, axis=0, dtype=np.float32)
