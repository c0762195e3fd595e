"""The prior: what a shopper is likely to want next, without a language model and without training.

Three signals (who else bought it, what it resembles, how often it is bought), their z-scored sum, and the adaptor
that makes each of them a `Ranker`. They retrieve A_u of eq. 9 from the catalogue and are fused with MAR's score.
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

    NaN (unknown) stays NaN and does not count; a feature whose known values are equal up to rounding has zeros.
    `scipy.stats.zscore` gives the same numbers, but NaN or noise for equal values, and takes ten times as long.

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

    The root tames the kNN's few large values; none of it is trained or tuned (docs/protocol.md). Of a candidate nobody
    has, kNN and popularity know nothing, which is not the worst there is to know: theirs are standard scores of the
    candidates somebody has, and 0, the mean of those, for the others. Content alone speaks for these.

    Attributes:
        version: Of this formula, for a run's manifest: rows of two formulas must not mix.
    """

    version = 2

    popularity_weight = 0.5

    def __init__(self, knn: ItemKNN, content: ContentSimilarity, popularity: Popularity) -> None:
        self.knn = knn
        self.content = content
        self.popularity = popularity

    @classmethod
    def fit(cls, histories: Histories, content: ContentSimilarity | None = None) -> Self:
        """Fit the two collaborative signals; `content` needs no fit, and without it there is no content signal."""
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
    """A scorer as a `Ranker`: the component is named like the ranker, a composite's parts are recorded beside it."""

    def __init__(self, name: str, scorer: Scorer) -> None:
        self.name = name
        self.scorer = scorer
        self._composite = scorer if isinstance(scorer, CompositeScorer) else None

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        history = [interaction.item_id for interaction in case.history]
        if self._composite is not None:
            parts = self._composite.parts(history, case.candidates)
            components = {**parts, self.name: self._composite.combine(parts)}
        else:
            components = {self.name: self.scorer.scores(history, case.candidates)}
        return ranking_from_scores(case, {name: vector.tolist() for name, vector in components.items()}, by=self.name)
