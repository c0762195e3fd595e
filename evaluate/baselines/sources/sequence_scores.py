"""The score of a sequential recommender for a candidate."""

from __future__ import annotations

import numpy as np

from evaluate.baselines.networks.sequence_ranker import SequenceRanker
from evaluate.baselines.sources.lists import FeatureColumns, ItemIndex, Lists


class SequenceScores:
    """One feature, named like the model; NaN for items without a vector."""

    def __init__(self, ranker: SequenceRanker, index: ItemIndex) -> None:
        self.names = (ranker.settings.name,)
        self.ranker = ranker
        self._row = index.rows_in(ranker.rows).astype(np.int64)

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        rows = self._row[lists.candidates]
        scores = self.ranker.list_scores(lists.cases, lists.owner.astype(np.int64), np.maximum(rows, 0))
        return np.where(rows >= 0, scores, np.nan)[:, None].astype(float)
