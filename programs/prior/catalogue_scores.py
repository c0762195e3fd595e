"""The prior over a whole catalogue, as matrices: the scores of all of its items for many histories at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from scipy import sparse

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
        self._via = self._content_neighbours()

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
                yield self._first(history, moment, np.append(reached[place], 0.0)[self._columns], via[:, place], k)

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

    def _content_neighbours(self) -> sparse.csr_matrix:
        """Weights of the content neighbours of every item, shape (items, columns of the walk); a row sums to 1 or 0."""
        content = self.prior.content
        found = content.neighbours_of(self.items)
        shape = (len(self.items), len(self.prior.walk.columns))
        if not found:
            return sparse.csr_matrix(shape)
        places = [place for place, item in enumerate(self.items) if item in found]
        near = [found[self.items[place]] for place in places]
        weights = np.stack([one.weights for one in near])
        totals = weights.sum(axis=1, keepdims=True)
        weights = np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)
        columns = self.prior.column_of_row[np.stack([one.rows for one in near])]
        owners = np.broadcast_to(np.array(places)[:, None], columns.shape)
        has = columns >= 0
        return sparse.csr_matrix((weights[has], (owners[has], columns[has])), shape=shape)
