"""The prior: a training-free ranker that sums z-scores of item-kNN, content similarity and popularity.

It retrieves A_u of eq. 9 from the catalogue and is fused with MAR's score; `ScoreRanker` makes any scorer a `Ranker`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from programs.prior.scorers import CompositeScorer, ContentSimilarity, Histories, ItemKNN, Popularity, Scorer, Scores
from programs.ranker import ranking_from_scores
from signatures.rows import Case, Ranking


def z(values: NDArray[np.floating]) -> Scores:
    """Standard scores over the candidates of a case, shape (n,), or of several features of them, shape (n, k).

    NaN (unknown) stays NaN and does not count; values that are equal up to rounding become 0, where
    `scipy.stats.zscore` gives NaN or noise.

    >>> z(np.array([1.0, 3.0, np.nan])).tolist(), z(np.array([0.1, 0.1, 0.1])).tolist()
    ([-1.0, 1.0, nan], [0.0, 0.0, 0.0])
    """
    x = np.asarray(values, dtype=float)
    known = ~np.isnan(x)
    n = np.maximum(known.sum(axis=0), 1)
    filled = np.where(known, x, 0.0)
    centred = x - filled.sum(axis=0) / n
    spread = np.sqrt(np.where(known, centred**2, 0.0).sum(axis=0) / n)
    equal = spread <= 1e-6 * np.abs(filled).max(axis=0, initial=0.0)
    scores: Scores = np.where(known & equal, 0.0, centred / np.where(equal, 1.0, spread))
    return scores


class Prior:
    """z(sqrt(kNN)) + z(content) + 0.5 z(log(1 + popularity)), z taken over the candidates of the case.

    The root reduces the kNN's few large values; nothing is trained or tuned (docs/protocol.md). For items without
    training interactions the two collaborative terms are neutral (0, the mean of the other candidates), not minimal.

    Attributes:
        version: Version of the formula, for a run's manifest: rows of two formulas must not be mixed.
    """

    version = 2

    popularity_weight = 0.5

    def __init__(self, knn: ItemKNN, content: ContentSimilarity, popularity: Popularity) -> None:
        self.knn = knn
        self.content = content
        self.popularity = popularity

    @classmethod
    def fit(cls, histories: Histories, content: ContentSimilarity | None = None) -> Self:
        """Fit the two collaborative signals; `content` needs no fit, None leaves it out."""
        return cls(ItemKNN.fit(histories), content or ContentSimilarity({}), Popularity.fit(histories))

    def parts(self, history: Sequence[str], candidates: Sequence[str]) -> dict[str, Scores]:
        """Raw `knn` (cosine sums), `content` (cosines) and `popularity` (users), each of shape (n,)."""
        return {
            "knn": self.knn.similarity(history, candidates),
            "content": self.content.scores(history, candidates),
            "popularity": self.popularity.scores(history, candidates),
        }

    def combine(self, parts: Mapping[str, Scores]) -> Scores:
        """The prior's score from its raw parts."""
        known = parts["popularity"] > 0
        collaborative = np.zeros(len(known))
        collaborative[known] = z(np.sqrt(parts["knn"][known])) + self.popularity_weight * z(
            np.log1p(parts["popularity"][known])
        )
        return collaborative + z(parts["content"])

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> Scores:
        """See `Scorer.scores`."""
        return self.combine(self.parts(history, candidates))


class ScoreRanker:
    """A scorer as a `Ranker`. Its score vector has the ranker's name; the parts of a composite are recorded, too."""

    def __init__(self, name: str, scorer: Scorer) -> None:
        self.name = name
        self.scorer = scorer
        self._composite = scorer if isinstance(scorer, CompositeScorer) else None

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        if self._composite is not None:
            parts = self._composite.parts(case.item_ids, case.candidates)
            components = {**parts, self.name: self._composite.combine(parts)}
        else:
            components = {self.name: self.scorer.scores(case.item_ids, case.candidates)}
        return ranking_from_scores(case, {name: vector.tolist() for name, vector in components.items()}, by=self.name)
