"""Match of the leanings of user and candidate, by the sentence encoder: a motivation feature that asks no model."""

from __future__ import annotations

import numpy as np

from evaluate.baselines.sources.lists import FeatureColumns, ItemIndex, Lists
from programs.motivation_encoder import MotivationEncoder


class LeaningsFeature:
    """`leanings`: the dot product of the program `encoder`, with the mean leanings of the last listed items.

    NaN for users without a known item and for unknown candidates.
    """

    names = ("leanings",)

    def __init__(self, motivations: MotivationEncoder, index: ItemIndex) -> None:
        nothing = np.zeros(len(motivations.schema.dimensions))
        items = motivations.catalogue
        known = [motivations.of(items[item]) if item in items else nothing for item in index.rows]
        self._vectors = np.vstack([*known, nothing])

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        counts = (lists.histories >= 0).sum(axis=1)
        own = self._vectors[lists.histories].sum(axis=1) / np.maximum(counts, 1)[:, None]
        match = (own[lists.owner] * self._vectors[lists.candidates]).sum(axis=1)
        known = (counts[lists.owner] > 0) & (lists.candidates >= 0)
        return np.where(known, match, np.nan)[:, None]
