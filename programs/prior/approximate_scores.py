"""The prior over a catalogue of up to millions of items: a pool of likely items, scored by the prior's formula."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from programs.prior.neighbour_graph import neighbour_graph
from programs.prior.own_texts import OwnTexts
from programs.prior.past_sales import NO_DATES, CatalogueSales
from programs.prior.prior import Prior
from programs.prior.scorers import Scores
from programs.prior.short_walk import ShortWalk
from programs.ranker import first_by_score
from programs.runtime.events import OnEvent, ignore
from signatures.rows import seed_of

Places = NDArray[np.intp]
"""Places of items in the catalogue."""

WALKED = 300
"""Items of the pool that the walk scores highest."""

WALKED_TEXTS = 60
"""Those of them whose nearest texts are in the pool, too; also of the texts near the history."""

POPULAR = 200
"""The most popular items in the pool, by sales for users with dates where the prior counts them."""

FURTHER = 10
"""Texts in the pool for each of those; for an item of the history all of its neighbours are."""

SAMPLE = 2048
"""Items that stand for the rest of the catalogue in means and standard deviations."""

_CHUNK = 50_000
"""Items that `exact` scores at a time."""


@dataclass(frozen=True)
class _Some:
    """Some items of the catalogue, with what their scores need.

    Attributes:
        places: Shape (n,).
        with_text: Those of the n that have a text, shape (m,); the following have a row for each of these.
        vectors: Of their texts.
        neighbour_columns: Columns of the walk of their nearest texts.
        weights: Of these; a row sums to 1, or 0 if no text is near.
        totals: What it summed to before.
    """

    places: Places
    with_text: NDArray[np.intp]
    vectors: NDArray[np.floating]
    neighbour_columns: NDArray[np.intp]
    weights: NDArray[np.float32]
    totals: NDArray[np.float32]


class ApproximateScores:
    """The items of a large catalogue that the prior scores best, with few items scored.

    Scored are the items of a pool: content neighbours of the history, the items that the walk reaches and their content
    neighbours, and the most popular or most sold ones. Means and standard deviations of the prior's formula are those
    of the whole catalogue, estimated from the pool and a random sample of the other items, the same for all users.

    Args:
        catalogue: Distinct item ids.
        on_event: Told of the work that is done once for a catalogue.
    """

    def __init__(self, prior: Prior, catalogue: Sequence[str], on_event: OnEvent = ignore) -> None:
        self.prior = prior
        self.items = tuple(catalogue)
        self._places = {item: place for place, item in enumerate(self.items)}
        n, rows = len(self.items), prior.content.rows
        self._popularity = prior.popularity.scores((), self.items)
        self._sales = CatalogueSales(prior.sales, self.items) if prior.sales is not None else None
        self._popular = np.argsort(-self._popularity, kind="stable")[:POPULAR]
        # A further last column, which no walk reaches, for items that the walk does not know.
        unknown = len(prior.walk.columns)
        self._column = np.array([prior.walk.columns.get(item, unknown) for item in self.items], dtype=np.intp)
        self._of_column = np.full(unknown + 1, -1, dtype=np.intp)
        self._of_column[self._column] = np.arange(n)
        self._of_column[unknown] = -1
        # Nodes of the graph of texts.
        self._of_node = np.array([place for place, item in enumerate(self.items) if item in rows], dtype=np.intp)
        self._node = np.full(n, -1, dtype=np.intp)
        self._node[self._of_node] = np.arange(len(self._of_node))
        self._column_of_node = self._column[self._of_node]
        row_of_node = np.array([rows[self.items[place]] for place in self._of_node], dtype=np.intp)
        whole = np.array_equal(row_of_node, np.arange(len(prior.content.matrix)))
        self._vectors = prior.content.matrix if whole else prior.content.matrix[row_of_node]
        self._graph = neighbour_graph(self._vectors, on_event)
        self.walk = ShortWalk(prior.walk)
        self._sample = self._some(np.sort(np.random.default_rng(0).choice(n, min(n, SAMPLE), replace=False)))

    def first(
        self, histories: Iterable[Sequence[str]], k: int, moments: Iterable[int | None] = NO_DATES
    ) -> Iterator[tuple[str, ...]]:
        """See `Retriever.first`; at most as many as the pool has."""
        walked = np.zeros(len(self.prior.walk.columns) + 1, dtype=np.float32)
        for history, moment in zip(histories, moments, strict=False):  # dates may be endless
            columns = self.walk.reach(history, walked)
            sales = None if self._sales is None or moment is None else self._sales.at(moment)
            yield self._first(history, columns, walked, sales, k)
            walked[columns] = 0

    def beside(self, outside: Mapping[str, NDArray[np.floating]]) -> ApproximateScores:
        """See `Retriever.beside`."""
        other = copy.copy(self)
        other.prior = self.prior.beside(outside)
        return other

    def exact(self, histories: Sequence[Sequence[str]], k: int) -> list[tuple[str, ...]]:
        """What `first` without dates approximates, apart from the graph: every item scored, after the whole walk. Slow.

        Holds four numbers for each history and item.
        """
        reached = self.prior.walk.scores(histories)
        walked = np.hstack([reached, np.zeros((len(histories), 1))]).astype(np.float32)
        parts: list[list[dict[str, Scores]]] = [[] for _ in histories]
        for start in range(0, len(self.items), _CHUNK):
            some = self._some(np.arange(start, min(len(self.items), start + _CHUNK)))
            for own, history, row in zip(parts, histories, walked, strict=True):
                own.append(self._parts(history, row, some, None))
        found = []
        for own, history in zip(parts, histories, strict=True):
            unseen = np.ones(len(self.items), dtype=bool)
            unseen[self._seen(history)] = False
            joined = {name: np.concatenate([part[name] for part in own])[unseen] for name in own[0]}
            best = first_by_score(self.prior.combine(joined), k, tie_seed=seed_of("retrieve", *history))
            found.append(tuple(self.items[place] for place in np.flatnonzero(unseen)[best]))
        return found

    def _first(
        self,
        history: Sequence[str],
        columns: NDArray[np.intp],
        walked: NDArray[np.float32],
        sales: Scores | None,
        k: int,
    ) -> tuple[str, ...]:
        seen = self._seen(history)
        bought = self._popular if sales is None else _largest(np.arange(len(sales)), sales, POPULAR)
        pool = np.setdiff1d(np.concatenate([self._pool(history, columns, walked), bought]), seen)
        others = ~np.isin(self._sample.places, np.concatenate([pool, seen]))
        standing_for = (len(self.items) - len(seen) - len(pool)) / max(1, others.sum())
        ours = self._parts(history, walked, self._some(pool), sales)
        theirs = self._parts(history, walked, self._sample, sales)
        scores = self.prior.combine(
            {name: np.concatenate([ours[name], theirs[name]]) for name in ours},
            counts=np.concatenate([np.ones(len(pool)), others * standing_for]),
        )[: len(pool)]
        best = first_by_score(scores, k, tie_seed=seed_of("retrieve", *history))
        return tuple(self.items[place] for place in pool[best])

    def _pool(self, history: Sequence[str], columns: NDArray[np.intp], walked: NDArray[np.float32]) -> Places:
        """Items near the history, some of them more than once; perhaps items of the history."""
        strongest = _largest(columns, walked[columns], WALKED)
        reached = self._of_column[strongest]
        reached = reached[reached >= 0]
        near = self._near(history)
        further = np.concatenate([self._nodes(near)[:WALKED_TEXTS], self._nodes(reached)[:WALKED_TEXTS]])
        texts = self._of_node[self._graph["row"][further, :FURTHER].ravel()]
        return np.concatenate([reached, near, texts])

    def _near(self, history: Sequence[str]) -> Places:
        """Items with texts like those of the last items of a history, newest item first."""
        content = self.prior.content
        near = []
        for item in reversed(history[-content.items_last :]):
            row, place = content.rows.get(item), self._places.get(item)
            vector = content.vector_outside(item) if row is None else content.matrix[row]
            if row is not None and place is not None:
                near.append(self._graph["row"][self._node[place]])
            elif vector is not None:  # a text of the user's own
                cosines = self._vectors @ vector
                near.append(_largest(np.arange(len(cosines)), cosines, self._graph.shape[1]))
        return self._of_node[np.concatenate(near)] if near else np.zeros(0, dtype=np.intp)

    def _seen(self, history: Sequence[str]) -> Places:
        return np.array([self._places[item] for item in set(history) if item in self._places], dtype=np.intp)

    def _nodes(self, places: Places) -> NDArray[np.intp]:
        nodes = self._node[places]
        return nodes[nodes >= 0]

    def _some(self, places: Places) -> _Some:
        nodes = self._node[places]
        with_text = np.flatnonzero(nodes >= 0)
        edges = self._graph[nodes[with_text]]
        cosines = np.maximum(edges["cosine"], 0)
        weights = cosines * cosines * cosines
        totals = weights.sum(axis=1, keepdims=True)
        weights = np.divide(weights, totals, out=np.zeros_like(weights), where=totals > 0)
        columns = self._column_of_node[edges["row"]]
        return _Some(places, with_text, self._vectors[nodes[with_text]], columns, weights, totals)

    def _parts(
        self, history: Sequence[str], walked: NDArray[np.float32], some: _Some, sales: Scores | None
    ) -> dict[str, Scores]:
        content, via = np.zeros(len(some.places)), np.zeros(len(some.places))
        content[some.with_text] = self.prior.content.similarity(history, some.vectors)
        values = walked[some.neighbour_columns]
        via[some.with_text] = np.einsum("nk,nk->n", some.weights, values)
        own = OwnTexts.of(history, self.prior.content, self.prior.walk, walked)
        if own is not None:
            weights, known = some.weights * some.totals, via[some.with_text]
            via[some.with_text] = own.via(some.vectors, weights, values, known, self._graph.shape[1])
        parts = {
            "walk": walked[self._column[some.places]].astype(float),
            "via": via,
            "content": content,
            "popularity": self._popularity[some.places],
        }
        return parts if sales is None else parts | {"sales": sales[some.places]}


def _largest(things: NDArray[np.intp], values: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """The things with the k largest values, the largest first."""
    if len(values) > k:
        chosen = np.argpartition(-values, k)[:k]
        things, values = things[chosen], values[chosen]
    return things[np.argsort(-values, kind="stable")]
