"""What a learner is told about a candidate: sources of features, and the matrix they make together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, stats

from programs.prior.prior import z
from programs.prior.scorers import ContentSimilarity, Histories, ItemKNN, Popularity
from programs.ranker import Ranker
from programs.runtime.errors import InputError
from signatures.rows import Case, Ranking
from signatures.types import Item

Features = NDArray[np.float64]


class FeatureSource(Protocol):
    """Describes the candidates of a case in numbers, from the case without its target."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the k features."""
        ...

    def features(self, case: Case) -> Features:
        """Shape (n, k) for n candidates in the order of the case; NaN where nothing is known. Thread-safe."""
        ...


def feature_table(sources: Sequence[FeatureSource], case: Case) -> Features:
    """The features of all sources side by side, shape (n, sum of k)."""
    return np.hstack([source.features(case) for source in sources])


class Relative:
    """A source's features as they are, and how each compares with the other candidates' of the case.

    Per feature its standard score and the share of candidates it is above (ties count half, 0 to 1): what decides is
    not how similar a candidate is, but whether the others are less so.
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
    """Which share of the known values of its column a value is above, ties counting half."""
    if not len(columns):
        return columns
    n = np.maximum((~np.isnan(columns)).sum(axis=0), 1)
    return (stats.rankdata(columns, axis=0, nan_policy="omit") - 0.5) / n


class Signals:
    """The prior's signals, kNN and content also for the newest item of the history alone.

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
        history, candidates = item_ids(case), case.candidates
        return np.column_stack(
            [
                np.sqrt(self.knn.similarity(history, candidates)),
                np.sqrt(self.knn.similarity(history[-1:], candidates)),
                self.content.scores(history, candidates),
                self.content.scores(history[-1:], candidates),
                np.log1p(self.popularity.scores(history, candidates)),
            ]
        )


class Overlap:
    """How much a candidate is described like the recent history: cosine over names, weighted by their rarity.

    Names are category nodes or title words; one that every item has weighs nothing. Three features: the largest and
    the mean cosine over the last items, and that with the newest one. NaN for candidates outside the catalogue, and
    where no item of the history is in it.

    Args:
        described: The names that describe each item, by id, each name once.
        kind: What they are, for the names of the features.
        items_last: How much of the history counts.
    """

    def __init__(self, described: Mapping[str, Sequence[str]], kind: str, items_last: int = 20) -> None:
        self.names = (f"{kind}.nearest", f"{kind}.mean", f"{kind}.newest")
        self.items_last = items_last
        self.rows = {item: row for row, item in enumerate(described)}
        counts = Counter(name for names in described.values() for name in names)
        columns = {name: column for column, name in enumerate(counts)}
        rarity = {name: np.log(len(described) / count) for name, count in counts.items()}
        of_row = np.repeat(np.arange(len(described)), [len(names) for names in described.values()])
        of_column = np.array([columns[name] for names in described.values() for name in names], dtype=np.int64)
        weights = np.array([rarity[name] for names in described.values() for name in names], dtype=float)
        lengths = np.sqrt(np.bincount(of_row, weights, minlength=len(described)))[of_row]
        entries = np.divide(np.sqrt(weights), lengths, out=np.zeros_like(weights), where=lengths > 0)
        self.matrix = sparse.csr_matrix((entries, (of_row, of_column)), shape=(len(described), len(columns)))

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        out = np.full((len(case.candidates), len(self.names)), np.nan)
        recent = [self.rows[item] for item in item_ids(case)[-self.items_last :] if item in self.rows]
        places = [place for place, item in enumerate(case.candidates) if item in self.rows]
        if recent and places:
            rows = [self.rows[case.candidates[place]] for place in places]
            alike = (self.matrix[rows] @ self.matrix[recent].T).toarray()
            out[places] = np.column_stack([alike.max(axis=1), alike.mean(axis=1), alike[:, -1]])
        return out


class Shop:
    """Whether a candidate costs what the user pays, and whether they know the brand.

    `brand`: share of the branded items of the history that have the candidate's brand. `price`: its log, in the
    catalogue's currency. `price.distance`: how far that is from the history's mean.
    """

    names = ("brand", "price", "price.distance")

    def __init__(self, items: Mapping[str, Item]) -> None:
        self.brands = {item_id: item.brand for item_id, item in items.items() if item.brand}
        self.prices = {item_id: np.log1p(item.price) for item_id, item in items.items() if item.price is not None}

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        history = item_ids(case)
        brands = Counter(self.brands[item] for item in history if item in self.brands)
        paid = [self.prices[item] for item in history if item in self.prices]
        usual = float(np.mean(paid)) if paid else np.nan
        out = np.full((len(case.candidates), 3), np.nan)
        for row, item in enumerate(case.candidates):
            if brands and item in self.brands:
                out[row, 0] = brands[self.brands[item]] / brands.total()
            out[row, 1] = self.prices.get(item, np.nan)
        out[:, 2] = np.abs(out[:, 1] - usual)
        return out


class HistoryLength:
    """How many items the history has: how far to trust what is derived from it."""

    names = ("history",)

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        return np.full((len(case.candidates), 1), float(len(case.history)))


class RankerScores:
    """The score of another ranker, asked when the features are."""

    def __init__(self, ranker: Ranker, name: str) -> None:
        self.names = (name,)
        self.ranker = ranker

    def features(self, case: Case) -> Features:
        """See `FeatureSource.features`."""
        return _column(self.ranker.rank(case), self.names[0])


class RecordedScores:
    """The score of a ranker that has been run: for one that is dear, such as MAR. NaN for users without a row.

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
            InputError: if the row ranks other candidates than the case has.
        """
        row = self.rows.get(case.user_id)
        if row is None or self.names[0] not in row.scores:
            return np.full((len(case.candidates), 1), np.nan)
        if set(row.order) != set(case.candidates):
            raise InputError(f"the recorded row of user {case.user_id!r} ranks other candidates than the case has")
        return _column(row, self.names[0])


def _column(row: Ranking, name: str) -> Features:
    return np.array(row.scores[name], dtype=float)[:, None]


def item_ids(case: Case) -> list[str]:
    """The history's item ids, oldest first."""
    return [event.item_id for event in case.history]
