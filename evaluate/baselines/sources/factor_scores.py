"""The score of a factor model for a candidate."""

from __future__ import annotations

import numpy as np

from evaluate.baselines.factors import FactorRanker
from evaluate.baselines.sources.lists import FeatureColumns, ItemIndex, Lists


class FactorScores:
    """One feature, named like the model; NaN for items that the model cannot score. New users are folded in."""

    def __init__(self, ranker: FactorRanker, index: ItemIndex) -> None:
        self.names = (ranker.name,)
        self.ranker = ranker
        self._row = index.rows_in(ranker.factors.items)

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        factors = self.ranker.factors
        if not lists.cases:
            return np.zeros((0, 1))
        users = np.stack([self.ranker.user_vector(case) for case in lists.cases])
        rows = self._row[lists.candidates]
        scores = (users[lists.owner] * factors.item_vectors[rows]).sum(axis=1) + factors.item_biases[rows]
        return np.where(rows >= 0, scores, np.nan)[:, None].astype(float)
