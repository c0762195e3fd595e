"""Transitions between categories or brands: how often users went from those of the history to that of a candidate."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy import sparse

from evaluate.baselines.sources.lists import FeatureColumns, ItemIndex, Lists
from programs.prior.scorers import Histories

_LAST = 5
_DECAY = 0.7
_SMOOTHING = 10.0
"""Interactions at the label's overall share that are added to those after every label."""


class Transitions:
    """Log probabilities of a candidate's label, given the labels of the last items of the history.

    With n(a, b) purchases of label b right after label a in training histories, and P(b) the share of b in all of them,
    P(b | a) = (n(a, b) + m P(b)) / (n(a) + m), m = 10. `.next`: log of its mean over the last five items, with weights
    .7^age. `.next.newest`: log of that of the newest. `.lift`: `.next` minus log P(b). `.run`: length of the run of
    label b at the end of the history. NaN for items without a label.

    Args:
        labels: Label by item id, such as its category; items without one are absent.
        kind: Kind of the labels, for the names of the features.
    """

    def __init__(self, histories: Histories, labels: Mapping[str, str], kind: str, index: ItemIndex) -> None:
        self.names = (f"{kind}.next", f"{kind}.next.newest", f"{kind}.lift", f"{kind}.run")
        numbers = {label: number for number, label in enumerate(dict.fromkeys(labels.values()))}
        self._labels = index.rows_in({item: numbers[label] for item, label in labels.items()})
        pairs = [
            (before, after)
            for history in histories.values()
            for before, after in zip(
                self._labels[index.of_items(history[:-1])], self._labels[index.of_items(history[1:])], strict=True
            )
            if before >= 0 and after >= 0
        ]
        first, second = np.array(pairs, dtype=np.intp).reshape(-1, 2).T
        size = max(1, len(numbers))
        self._counts = sparse.csr_matrix((np.ones(len(first)), (first, second)), shape=(size, size))
        self._after = np.bincount(first, minlength=size).astype(float)
        # One more than seen of every label, so that no share is 0.
        seen = np.bincount(second, minlength=size) + 1.0
        self._shares = seen / seen.sum()

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        own = self._labels[lists.candidates]
        before = self._labels[lists.histories[:, :_LAST]][lists.owner]
        known = (own >= 0)[:, None] & (before >= 0)
        places, ages = np.nonzero(known)
        probabilities = np.zeros(known.shape)
        probabilities[places, ages] = self._probabilities(before[places, ages], own[places])
        weights = np.where(known, _DECAY ** np.arange(known.shape[1]), 0.0)
        total = weights.sum(axis=1)
        share = np.where(own >= 0, self._shares[own], np.nan)
        mean = np.where(total > 0, (weights * probabilities).sum(axis=1) / np.where(total > 0, total, 1.0), share)
        newest = np.where(known[:, 0], probabilities[:, 0], share)
        run = np.cumprod(before == own[:, None], axis=1).sum(axis=1).astype(float)
        run[own < 0] = np.nan
        logs = np.log(np.column_stack([mean, newest, share]))
        return np.column_stack([logs[:, :2], logs[:, 0] - logs[:, 2], run])

    def _probabilities(self, before: np.ndarray, after: np.ndarray) -> FeatureColumns:
        counts = np.asarray(self._counts[before, after]).ravel()
        return (counts + _SMOOTHING * self._shares[after]) / (self._after[before] + _SMOOTHING)
