"""Users and items as vectors whose product is the score: how BPR and LightFM rank once they are fitted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.baseline import unknown_below
from programs.ranker import ranking_from_scores
from signatures.rows import Case, Ranking

FactorVectors = NDArray[np.float32]


@dataclass(frozen=True)
class Factors:
    """A fitted factor model: score(u, i) = user_vectors[u] · item_vectors[i] + item_biases[i].

    Attributes:
        users: Row of every fitted user.
        user_vectors: Shape (users, d).
        items: Row of every item that can be scored.
        item_vectors: Shape (items, d).
        item_biases: Shape (items,).
        traits: Vectors of length d of what metadata says, by `trait_name`; empty where users have no features.
    """

    users: Mapping[str, int]
    user_vectors: FactorVectors
    items: Mapping[str, int]
    item_vectors: FactorVectors
    item_biases: FactorVectors
    traits: Mapping[str, FactorVectors] = field(default_factory=dict)


def trait_name(key: str, value: str) -> str:
    """The user feature that one entry of the metadata becomes.

    >>> trait_name("gender", "F")
    'gender=F'
    """
    return f"{key}={value}"


class FactorRanker:
    """Ranks by a factor model.

    A user who is not in the fit is folded in: the mean of the history's item vectors, stretched to the mean length of
    the fitted users' vectors, stands where their own vector would, and is averaged with the vectors of their traits.
    Without a known item and a known trait only the items' biases count. Items that cannot be scored: `unknown_below`.
    """

    def __init__(self, name: str, factors: Factors) -> None:
        self.name = name
        self.factors = factors
        lengths = np.linalg.norm(factors.user_vectors, axis=1)
        self._user_length = float(lengths.mean()) if lengths.size else 0.0

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        factors = self.factors
        row = factors.users.get(case.user_id)
        user = factors.user_vectors[row] if row is not None else self._folded_in(case)
        places = [place for place, item in enumerate(case.candidates) if item in factors.items]
        rows = [factors.items[case.candidates[place]] for place in places]
        known = factors.item_vectors[rows] @ user + factors.item_biases[rows]
        scores = unknown_below(known, places, len(case.candidates))
        return ranking_from_scores(case, {self.name: scores.tolist()}, by=self.name)

    def _folded_in(self, case: Case) -> FactorVectors:
        factors = self.factors
        rows = [factors.items[event.item_id] for event in case.history if event.item_id in factors.items]
        parts = []
        if rows:
            mean = factors.item_vectors[rows].mean(axis=0)
            parts.append(mean * (self._user_length / max(float(np.linalg.norm(mean)), 1e-12)))
        names = [trait_name(key, value) for key, value in case.metadata.items()]
        parts.extend(factors.traits[name] for name in names if name in factors.traits)
        if not parts:
            return np.zeros(factors.item_vectors.shape[1], dtype=np.float32)
        return np.mean(parts, axis=0, dtype=np.float32)
