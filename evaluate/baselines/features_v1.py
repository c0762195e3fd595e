"""Features of candidates, case by case, for version 1 of `learned` and the weighted sum of studies.

Version 2 computes them for many lists at once, see `evaluate.baselines.sources`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from programs.prior.scorers import ContentSimilarity, Histories, ItemKNN, Popularity
from programs.prior.standard_scores import z
from programs.ranker import Ranker
from programs.runtime.errors import InputError, quoted
from signatures.rows import Case, Ranking
from signatures.types import Item

Features = NDArray[np.float64]

_LAST_ITEMS = 20
"""Number of last items of a history that count for overlaps."""


class FeatureSource(Protocol):
    """Computes numeric features of the candidates of a case without its target."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the k features."""
        ...

    def features(self, case: Case) -> Features:
        """Shape (n, k) for n candidates in the order of the case; NaN for unknown values. Thread-safe."""
        ...


def feature_table(sources: Sequence[FeatureSource], case: Case) -> Features:
    """The features of all sources side by side, shape (n, sum of k)."""
    return np.hstack([source.features(case) for source in sources])


class RelativeV1:
    """The features of a source, and two relative versions of each within the case.

    These are its standard score, and the share of candidates with a smaller value (ties count half): the choice depends
    on how a candidate compares with the others.
    """

    def __init__(self, source: FeatureSource) -> None:
        self.source = source

    @property
    def names(self) -> tuple[str, ...]:
        """See `FeatureSource.names`."""
        names = self.source.names
        return (*names, *(f"{name}.z" for name in names), *(f"{name}.above" for name in names))

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        own = self.source.features(case)
        return np.hstack([own, z(own), _share_above(own)])


def _share_above(columns: Features) -> Features:
    """Share of the known values of a column that are smaller, ties counting half."""
    if not len(columns):
        return columns
    n = np.maximum((~np.isnan(columns)).sum(axis=0), 1)
    return (stats.rankdata(columns, axis=0, nan_policy="omit") - 0.5) / n


class Signals:
    """The prior's signals; kNN and content also for the last item of the history alone.

    `knn`, `knn.newest`: roots of cosine sums, as in the prior. `content`, `content.newest`: cosines.
    `popularity`: log(1 + users).
    """

    names = ("knn", "knn.newest", "content", "content.newest", "popularity")

    def __init__(self, histories: Histories, content: ContentSimilarity) -> None:
        self.knn = ItemKNN.fit(histories)
        self.popularity = Popularity.fit(histories)
        self.content = content

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        history, candidates = case.item_ids, case.candidates
        return np.column_stack(
            [
                np.sqrt(self.knn.similarity(history, candidates)),
                np.sqrt(self.knn.similarity(history[-1:], candidates)),
                self.content.scores(history, candidates),
                self.content.scores(history[-1:], candidates),
                np.log1p(self.popularity.scores(history, candidates)),
            ]
        )


class OverlapV1:
    """Similarity of descriptions: cosine between a candidate and history items over idf-weighted terms.

    Terms are category nodes or title words. Three features: the largest and the mean cosine over the last items, and
    the cosine with the last one. NaN for candidates outside the catalogue, and if no history item is in it.

    Args:
        terms: Distinct terms of each item, by id.
        kind: Kind of the terms, for the names of the features.
    """

    def __init__(self, terms: Mapping[str, Sequence[str]], kind: str) -> None:
        self.names = (f"{kind}.nearest", f"{kind}.mean", f"{kind}.newest")
        self.rows = {item: row for row, item in enumerate(terms)}
        counts = Counter(term for own in terms.values() for term in own)
        columns = {term: column for column, term in enumerate(counts)}
        idf = {term: np.log(len(terms) / count) for term, count in counts.items()}
        row_of = np.repeat(np.arange(len(terms)), [len(own) for own in terms.values()])
        column_of = np.array([columns[term] for own in terms.values() for term in own], dtype=np.int64)
        weights = np.array([idf[term] for own in terms.values() for term in own], dtype=float)
        lengths = np.sqrt(np.bincount(row_of, weights, minlength=len(terms)))[row_of]
        entries = np.divide(np.sqrt(weights), lengths, out=np.zeros_like(weights), where=lengths > 0)
        self.matrix = sparse.csr_matrix((entries, (row_of, column_of)), shape=(len(terms), len(columns)))

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        out = np.full((len(case.candidates), len(self.names)), np.nan)
        recent = [self.rows[item] for item in case.item_ids[-_LAST_ITEMS:] if item in self.rows]
        known = {index: self.rows[item] for index, item in enumerate(case.candidates) if item in self.rows}
        if recent and known:
            cosines = (self.matrix[list(known.values())] @ self.matrix[recent].T).toarray()
            out[list(known)] = np.column_stack([cosines.max(axis=1), cosines.mean(axis=1), cosines[:, -1]])
        return out


class PriceAndBrand:
    """Price of a candidate, its distance to the history's prices, and the history's share of its brand.

    `brand`: share of the candidate's brand among the branded items of the history. `price`: log(1 + price).
    `price.distance`: absolute difference of `price` to the history's mean.
    """

    names = ("brand", "price", "price.distance")

    def __init__(self, items: Mapping[str, Item]) -> None:
        self.brands = {item_id: item.brand for item_id, item in items.items() if item.brand}
        self.prices = {item_id: np.log1p(item.price) for item_id, item in items.items() if item.price is not None}

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        brands = Counter(self.brands[item] for item in case.item_ids if item in self.brands)
        paid = [self.prices[item] for item in case.item_ids if item in self.prices]
        mean = float(np.mean(paid)) if paid else np.nan
        out = np.full((len(case.candidates), 3), np.nan)
        for row, item in enumerate(case.candidates):
            if brands and item in self.brands:
                out[row, 0] = brands[self.brands[item]] / brands.total()
            out[row, 1] = self.prices.get(item, np.nan)
        out[:, 2] = np.abs(out[:, 1] - mean)
        return out


class HistoryLength:
    """Length of the history: tells how reliable the features derived from it are."""

    names = ("history",)

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        return np.full((len(case.candidates), 1), float(len(case.history)))


class RankerScores:
    """The score of another ranker, computed when the features are."""

    def __init__(self, ranker: Ranker, name: str) -> None:
        self.names = (name,)
        self.ranker = ranker

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        return _column(self.ranker.rank(case), self.names[0])


class RecordedScores:
    """The score of a finished run, for expensive rankers such as MAR; NaN for users without a row.

    Args:
        rows: Journal rows by user, of the same candidate lists.
        name: Component of the rows' scores.
    """

    def __init__(self, rows: Mapping[str, Ranking], name: str) -> None:
        self.names = (name,)
        self.rows = rows

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`.

        Raises:
            InputError: if the row ranks other candidates than the case.
        """
        row = self.rows.get(case.user_id)
        if row is None or self.names[0] not in row.scores:
            return np.full((len(case.candidates), 1), np.nan)
        if set(row.order) != set(case.candidates):
            raise InputError(f"the recorded row of user {quoted(case.user_id)} ranks other candidates than the case")
        return _column(row, self.names[0])


def _column(row: Ranking, name: str) -> Features:
    return np.array(row.scores[name], dtype=float)[:, None]
