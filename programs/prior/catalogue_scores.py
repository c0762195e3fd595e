"""The prior over a whole catalogue, as matrices: the scores of all of its items for many histories at once."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from programs.prior.own_texts import OwnTexts
from programs.prior.past_sales import NO_DATES, CatalogueSales
from programs.prior.prior import BATCH_CELLS, Prior
from programs.prior.scorers import Scores
from programs.ranker import first_by_score
from signatures.rows import seed_of


class CatalogueScores:
    """The prior's scores of every item of a catalogue.

    The formula is that of `Prior.scores`, and the results are equal up to rounding. What depends on the catalogue alone
    is looked up once, not once for each user.

    Args:
        catalogue: Distinct item ids, known to the prior or not.
    """

    def __init__(self, prior: Prior, catalogue: Sequence[str]) -> None:
        self.prior = prior
        self.items = tuple(catalogue)
        self._places = {item: place for place, item in enumerate(self.items)}
        columns = prior.walk.columns
        # A further last column without a score, which -1 means.
        self._columns = np.array([columns.get(item, -1) for item in self.items], dtype=np.intp)
        rows = np.array([prior.content.rows.get(item, -1) for item in self.items], dtype=np.intp)
        self._with_text = np.flatnonzero(rows >= 0)
        self._vectors = prior.content.matrix[rows[self._with_text]]
        self._popularity = prior.popularity.scores((), self.items)
        self._sales = CatalogueSales(prior.sales, self.items) if prior.sales is not None else None
        self._near_columns, self._near_weights = self._content_neighbours()
        self._via = self._mean_of_neighbours()

    def beside(self, outside: Mapping[str, NDArray[np.floating]]) -> CatalogueScores:
        """See `Retriever.beside`."""
        other = copy.copy(self)
        other.prior = self.prior.beside(outside)
        return other

    def first(
        self, histories: Iterable[Sequence[str]], k: int, moments: Iterable[int | None] = NO_DATES
    ) -> Iterator[tuple[str, ...]]:
        """See `Retriever.first`; scores a batch of users at a time, of at most `BATCH_CELLS` numbers."""
        batch = max(1, BATCH_CELLS // (len(self.items) + len(self.prior.walk.columns) + 1))
        waiting = zip(histories, moments, strict=False)  # dates may be endless
        while some := list(islice(waiting, batch)):
            reached = self.prior.walk.scores([history for history, _ in some])
            via = self._via @ reached.T
            for place, (history, moment) in enumerate(some):
                walked = np.append(reached[place], 0.0)
                own = OwnTexts.of(history, self.prior.content, self.prior.walk, walked)
                near = via[:, place] if own is None else self._via_beside(own, walked, via[:, place])
                yield self._first(history, moment, walked[self._columns], near, k)

    def _via_beside(self, own: OwnTexts, walked: Scores, via: Scores) -> Scores:
        result = via.copy()
        result[self._with_text] = own.via(
            self._vectors, self._near_weights, walked[self._near_columns], via[self._with_text]
        )
        return result

    def _first(self, history: Sequence[str], moment: int | None, walk: Scores, via: Scores, k: int) -> tuple[str, ...]:
        unseen = np.ones(len(self.items), dtype=bool)
        unseen[[self._places[item] for item in set(history) if item in self._places]] = False
        eligible = np.flatnonzero(unseen)
        content = np.zeros(len(self.items))
        content[self._with_text] = self.prior.content.similarity(history, self._vectors)
        parts = {
            "walk": walk[eligible],
            "via": via[eligible],
            "content": content[eligible],
            "popularity": self._popularity[eligible],
        }
        if self._sales is not None and moment is not None:
            parts["sales"] = self._sales.at(moment)[eligible]
        best = first_by_score(self.prior.combine(parts), k, tie_seed=seed_of("retrieve", *history))
        return tuple(self.items[place] for place in eligible[best])

    def _content_neighbours(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Of the items with a text: columns of their neighbours, -1 for none, and weights; both of shape (m, k)."""
        found = self.prior.content.neighbours_of(self.items)
        near = [found[self.items[place]] for place in self._with_text]
        if not near:
            return np.zeros((0, 0), dtype=np.intp), np.zeros((0, 0))
        return self.prior.column_of_row[np.stack([one.rows for one in near])], np.stack([one.weights for one in near])

    def _mean_of_neighbours(self) -> sparse.csr_matrix:
        """Weights of the content neighbours of every item, shape (items, columns of the walk); a row sums to 1 or 0."""
        weights, columns = self._near_weights, self._near_columns
        totals = weights.sum(axis=1, keepdims=True)
        weights = np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)
        owners = np.broadcast_to(self._with_text[:, None], columns.shape)
        has = columns >= 0
        shape = (len(self.items), len(self.prior.walk.columns))
        return sparse.csr_matrix((weights[has], (owners[has], columns[has])), shape=shape)
