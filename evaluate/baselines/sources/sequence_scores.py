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
        self._row = np.array([ranker.rows.get(item, -1) for item in index.rows] + [-1], dtype=np.int64)

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        from evaluate.baselines.networks.sequence_network import list_scores

        known = self.ranker.rows
        histories = [
            np.array([known[item] for item in case.item_ids if item in known], dtype=np.int64) for case in lists.cases
        ]
        rows = self._row[lists.candidates]
        scores = list_scores(self.ranker.network, histories, lists.owner, np.maximum(rows, 0), self.ranker.settings)
        return np.where(rows >= 0, scores, np.nan)[:, None].astype(float)
