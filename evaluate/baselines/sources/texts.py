"""Similarity of descriptions to those of the history: sentence embeddings, category nodes and title words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import sparse

from evaluate.baselines.sources.lists import FeatureColumns, ItemIndex, Lists
from programs.prior.scorers import ContentSimilarity


class Content:
    """Cosines of sentence embeddings: mean of the three nearest items of the history, the nearest, and the newest."""

    names = ("content", "content.nearest", "content.newest")

    def __init__(self, content: ContentSimilarity, index: ItemIndex) -> None:
        self._row = index.rows_in(content.rows)
        width = content.matrix.shape[1] if len(content.matrix) else 1
        self._vectors = np.vstack([content.matrix.reshape(-1, width), np.zeros((1, width), dtype=np.float32)])
        self._nearest = content.nearest

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        candidates, histories = self._row[lists.candidates], self._row[lists.histories]
        cosines = np.full((len(candidates), histories.shape[1]), np.nan)
        ends = np.cumsum(np.bincount(lists.owner, minlength=len(lists.cases)))
        for number, end in enumerate(ends):
            start = ends[number - 1] if number else 0
            (places,) = np.nonzero(histories[number] >= 0)
            if places.size:
                own = self._vectors[histories[number, places]]
                cosines[start:end, places] = self._vectors[candidates[start:end]] @ own.T
        cosines[candidates < 0] = np.nan
        # Descending, unknown ones last.
        ordered = -np.sort(-cosines, axis=1)[:, : self._nearest]
        return np.column_stack([_mean(ordered), ordered[:, 0], cosines[:, 0]])


class Overlap:
    """Cosines over idf-weighted terms, category nodes or title words: nearest item of the history, mean, newest.

    Args:
        terms: Distinct terms of each item, by id.
        kind: Kind of the terms, for the names of the features.
    """

    def __init__(self, terms: Mapping[str, Sequence[str]], kind: str, index: ItemIndex) -> None:
        self.names = (f"{kind}.nearest", f"{kind}.mean", f"{kind}.newest")
        counts = Counter(term for own in terms.values() for term in own)
        columns = {term: column for column, term in enumerate(counts)}
        idf = {term: np.log(len(terms) / count) for term, count in counts.items()}
        rows = np.repeat(index.of_items(terms), [len(own) for own in terms.values()])
        weights = np.array([idf[term] for own in terms.values() for term in own], dtype=float)
        places = np.array([columns[term] for own in terms.values() for term in own], dtype=np.intp)
        lengths = np.sqrt(np.bincount(rows, weights, minlength=index.size))[rows]
        entries = np.divide(np.sqrt(weights), lengths, out=np.zeros_like(weights), where=lengths > 0)
        shape = (index.size, max(1, len(columns)))
        self._matrix = sparse.csr_matrix((entries, (rows, places)), shape=shape, dtype=np.float32)

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        places, ages = lists.pairs
        items, others = lists.candidates[places], lists.histories[lists.owner[places], ages]
        products = self._matrix[items].multiply(self._matrix[others])
        cosines = lists.similarities(np.asarray(products.sum(axis=1)).ravel())
        return np.column_stack([-np.sort(-cosines, axis=1)[:, 0], _mean(cosines), cosines[:, 0]])


def _mean(values: FeatureColumns) -> FeatureColumns:
    """Mean of the known values of a row; NaN without one."""
    known = ~np.isnan(values)
    return np.where(known, values, 0.0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)
