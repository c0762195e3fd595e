"""The prior: a training-free ranker that sums z-scores of a random walk, content similarity and popularity.

It retrieves A_u of eq. 9 from the catalogue and is fused with MAR's score.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from programs.prior.own_texts import OwnTexts
from programs.prior.past_sales import PastSales, newest_date
from programs.prior.random_walk import RandomWalk
from programs.prior.scorers import ContentSimilarity, Histories, Popularity, Scores, case_of
from programs.prior.standard_scores import z
from signatures.rows import Case

BATCH_CELLS = 4_000_000
"""Most scores held at a time: users of a batch times items of the catalogue."""


class Prior:
    """z(content) + z(via) + z(walk, or via where nobody has the item) + 0.5 z(log(1 + popularity)).

    z is taken over the candidates of the case, for the last two terms over those that some training user has. One
    formula serves known and unknown users and items; nothing is trained or tuned on test users (docs/protocol.md).
    The roots of `walk` and `via` are taken, which reduces their few large values.

    - `content`: mean cosine to the three most similar items of the history, see `ContentSimilarity`.
    - `walk`: two steps from the history over users and items, see `RandomWalk`.
    - `via`: mean `walk` score of the candidate's content neighbours, see `ContentSimilarity.neighbours_of`. It reaches
      items that nobody has yet. Texts of the user's own are among the neighbours, see `OwnTexts`.
    - `popularity`: users with the item; with `sales`, its sales in the days up to the user's newest interaction.

    Args:
        sales: Takes the place of popularity for users whose history has dates; None: popularity.

    Attributes:
        column_of_row: Columns of `walk` by row of `content.matrix`, -1 for items without one.
    """

    popularity_weight = 0.5

    def __init__(
        self,
        walk: RandomWalk,
        content: ContentSimilarity,
        popularity: Popularity,
        sales: PastSales | None = None,
    ) -> None:
        self.walk = walk
        self.content = content
        self.popularity = popularity
        self.sales = sales
        self.column_of_row = np.array([walk.columns.get(item, -1) for item in content.rows], dtype=np.intp)

    @classmethod
    def fit(
        cls, histories: Histories, content: ContentSimilarity | None = None, sales: PastSales | None = None
    ) -> Self:
        """Fit to training data; `content` and `sales` are optional and come as they are."""
        content = content or ContentSimilarity({})
        return cls(RandomWalk(histories, content.rows), content, Popularity.fit(histories), sales)

    def parts_of(self, cases: Sequence[Case]) -> list[dict[str, Scores]]:
        """Raw `walk`, `via`, `content` (cosines), `popularity` (users) and perhaps `sales`, each of shape (n,)."""
        batch = max(1, BATCH_CELLS // max(1, len(self.walk.columns)))
        parts = []
        for start in range(0, len(cases), batch):
            some = cases[start : start + batch]
            self.content.neighbours_of(item for case in some for item in case.candidates)
            reached = self.walk.scores([case.item_ids for case in some])
            parts += [self._parts(case, row) for case, row in zip(some, reached, strict=True)]
        return parts

    def _parts(self, case: Case, reached: Scores) -> dict[str, Scores]:
        history, candidates = case.item_ids, case.candidates
        columns = np.array([self.walk.columns.get(item, -1) for item in candidates], dtype=np.intp)
        parts = {
            "walk": _at(columns, reached),
            "via": self._via(history, candidates, reached),
            "content": self.content.scores(history, candidates),
            "popularity": self.popularity.scores(history, candidates),
        }
        moment = newest_date(case.history)
        if self.sales is not None and moment is not None:
            parts["sales"] = self.sales.at(moment, candidates)
        return parts

    def _via(self, history: Sequence[str], candidates: Sequence[str], reached: Scores) -> Scores:
        out = np.zeros(len(candidates))
        found = self.content.neighbours_of(candidates)
        known = [index for index, item in enumerate(candidates) if item in found]
        if known:
            rows = np.stack([found[candidates[index]].rows for index in known])
            weights = np.stack([found[candidates[index]].weights for index in known])
            totals = weights.sum(axis=1)
            values = _at(self.column_of_row[rows], reached)
            sums = (weights * values).sum(axis=1)
            via = np.divide(sums, totals, out=np.zeros(len(known)), where=totals > 0)
            own = OwnTexts.of(history, self.content, self.walk, reached)
            if own is not None:
                vectors = self.content.matrix[[self.content.rows[candidates[index]] for index in known]]
                via = own.via(vectors, weights, values, via)
            out[known] = via
        return out

    def combine(self, parts: Mapping[str, Scores], counts: NDArray[np.floating] | None = None) -> Scores:
        """The prior's score from its raw parts.

        Args:
            counts: How many candidates each one stands for, see `z`; None: 1.
        """
        known = parts["popularity"] > 0
        bought = np.log1p(parts.get("sales", parts["popularity"]))
        columns = np.column_stack(
            [
                parts["content"],
                np.sqrt(parts["via"]),
                np.where(known, np.sqrt(parts["walk"]), np.nan),
                np.where(known, bought, np.nan),
            ]
        )
        content, via, walk, popularity = z(columns, counts).T
        scores: Scores = content + via + np.where(known, walk, via)
        return scores + self.popularity_weight * np.where(known, popularity, 0.0)

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> Scores:
        """See `Scorer.scores`."""
        return self.combine(self.parts_of([case_of(history, candidates)])[0])

    def beside(self, outside: Mapping[str, NDArray[np.floating]]) -> Prior:
        """The same prior for histories with texts of the user's own; all that was fitted is shared.

        Args:
            outside: Unit vectors by text, see `ContentSimilarity`.
        """
        other = copy.copy(self)
        other.content = self.content.beside(outside)
        return other

    def on(self, content: ContentSimilarity) -> Prior:
        """The same prior with other texts."""
        return Prior(self.walk, content, self.popularity, self.sales)


def _at(columns: NDArray[np.intp], values: Scores) -> Scores:
    """The values at columns of any shape; 0 where there is no column (-1)."""
    return np.where(columns >= 0, values[columns], 0.0) if len(values) else np.zeros(columns.shape)
