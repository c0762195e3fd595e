"""Version 2 of the prior, to finish and to reproduce runs that were begun with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from programs.prior.scorers import ContentSimilarity, Histories, ItemKNN, Popularity, Scores, case_of
from programs.prior.standard_scores import z
from signatures.rows import Case


class PriorV2:
    """z(sqrt(kNN)) + z(content) + 0.5 z(log(1 + popularity)), z taken over the candidates of the case.

    The root reduces the kNN's few large values. For items without training interactions the two collaborative terms
    are 0, the mean of the other candidates.
    """

    popularity_weight = 0.5

    def __init__(self, knn: ItemKNN, content: ContentSimilarity, popularity: Popularity) -> None:
        self.knn = knn
        self.content = content
        self.popularity = popularity

    @classmethod
    def fit(cls, histories: Histories, content: ContentSimilarity | None = None) -> Self:
        """Fit the two collaborative signals; `content` needs no fit, None leaves it out."""
        return cls(ItemKNN.fit(histories), content or ContentSimilarity({}), Popularity.fit(histories))

    def parts_of(self, cases: Sequence[Case]) -> list[dict[str, Scores]]:
        """Raw `knn` (cosine sums), `content` (cosines) and `popularity` (users) of every case, each of shape (n,)."""
        return [
            {
                "knn": self.knn.similarity(case.item_ids, case.candidates),
                "content": self.content.scores(case.item_ids, case.candidates),
                "popularity": self.popularity.scores(case.item_ids, case.candidates),
            }
            for case in cases
        ]

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
        return self.combine(self.parts_of([case_of(history, candidates)])[0])

    def beside(self, outside: Mapping[str, NDArray[np.floating]]) -> PriorV2:
        """See `Prior.beside`."""
        return PriorV2(self.knn, self.content.beside(outside), self.popularity)

    def on(self, content: ContentSimilarity) -> PriorV2:
        """The same prior with other texts."""
        return PriorV2(self.knn, content, self.popularity)
