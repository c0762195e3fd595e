"""Features relative to the list: the choice depends on how a candidate compares with the others."""

from __future__ import annotations

import numpy as np

from evaluate.baselines.sources.lists import FeatureColumns, Lists, Source
from programs.prior.standard_scores import z


class Relative:
    """The features of a source, and two relative versions of each within the list.

    `.z`: its standard score. `.above`: the share of the known candidates with a smaller value, ties counting half.
    """

    def __init__(self, source: Source) -> None:
        self.source = source

    @property
    def names(self) -> tuple[str, ...]:
        """See `Source.names`."""
        names = self.source.names
        return (*names, *(f"{name}.z" for name in names), *(f"{name}.above" for name in names))

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        own = self.source.features(lists)
        lengths = np.bincount(lists.owner, minlength=len(lists.cases))
        places = np.arange(len(lists.owner)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        padded = np.full((len(lists.cases), max(lengths, default=0), own.shape[1]), np.nan)
        padded[lists.owner, places] = own
        known = ~np.isnan(padded)
        n = np.maximum(known.sum(axis=1, keepdims=True), 1)
        scores = z(padded.swapaxes(0, 1)).swapaxes(0, 1)
        above = np.where(known, _smaller(padded) / n, np.nan)
        return np.hstack([own, scores[lists.owner, places], above[lists.owner, places]])


def _smaller(padded: FeatureColumns) -> FeatureColumns:
    """Number of values in the same list and column that are smaller, ties and the value itself counting half."""
    # The candidates first, so that each comparison is with one block of memory.
    by_place = np.ascontiguousarray(padded.swapaxes(0, 1))
    twice = np.zeros(by_place.shape, dtype=np.int32)
    for values in by_place:
        twice += by_place > values
        twice += by_place >= values
    return twice.swapaxes(0, 1) / 2
