"""Candidate retrieval: the items of a catalogue that score best for each history (A_u of eq. 9)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from programs.prior.approximate_scores import ApproximateScores
from programs.prior.catalogue_scores import CatalogueScores
from programs.prior.past_sales import NO_DATES
from programs.prior.prior import Prior
from programs.prior.prior_v2 import PriorV2
from programs.prior.scorers import Scorer
from programs.ranker import first_by_score
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, ignore
from signatures.rows import seed_of


class Retriever(Protocol):
    """Finds the best items of one catalogue for many histories."""

    def first(
        self, histories: Iterable[Sequence[str]], k: int, moments: Iterable[int | None] = NO_DATES
    ) -> Iterator[tuple[str, ...]]:
        """The k items that score best for each history, without those of the history.

        Args:
            histories: Item ids of one user each, oldest first; read as they are needed, in bounded memory.
            k: At least 1.
            moments: Newest date of each history (Unix seconds), None where it has none: up to there the prior
                `3-sales` counts sales.

        Returns:
            Up to k ids for each history, best first; fewer if the catalogue has fewer. Ties are broken at random, with
            a seed of the history.
        """
        ...

    def beside(self, outside: Mapping[str, NDArray[np.floating]]) -> Retriever:
        """The same for histories with texts that the catalogue does not have; all that was fitted is shared.

        Args:
            outside: Unit vectors by text, see `ContentSimilarity`.
        """
        ...


EXACT_ITEMS = 20_000
"""Items with texts up to which every item is scored. Exact neighbours of all texts take some 13 CPU-seconds there (4.8
measured at 11,924), and four times as long for twice the items."""


def retriever_of(scorer: Scorer, catalogue: Sequence[str], on_event: OnEvent = ignore) -> Retriever:
    """The retriever of a catalogue. Make it once and use it for all users.

    With the `Prior`, many users are scored at once; above `EXACT_ITEMS` only the likely items are, see
    `ApproximateScores`.

    Args:
        catalogue: Distinct item ids.
        on_event: Told of the work that is done once for a large catalogue.
    """
    if not isinstance(scorer, Prior):
        return OneByOne(scorer, tuple(catalogue))
    if sum(item in scorer.content.rows for item in catalogue) > EXACT_ITEMS:
        return ApproximateScores(scorer, catalogue, on_event)
    return CatalogueScores(scorer, catalogue)


def retrieve(scorer: Scorer, history: Sequence[str], catalogue: Sequence[str], k: int) -> tuple[str, ...]:
    """The k best items for one history; see `Retriever.first`.

    Raises:
        InputError: k is below 1.

    >>> from programs.prior.scorers import Popularity
    >>> retrieve(Popularity({"a": 3, "b": 2, "c": 1}), history=["a"], catalogue=["a", "b", "c"], k=1)
    ('b',)
    """
    if k < 1:
        raise InputError(f"cannot retrieve {k} items: ask for at least 1")
    return next(retriever_of(scorer, catalogue).first([history], k))


@dataclass(frozen=True)
class OneByOne:
    """Every item scored by any scorer, for one history at a time."""

    scorer: Scorer
    catalogue: tuple[str, ...]

    def first(
        self, histories: Iterable[Sequence[str]], k: int, moments: Iterable[int | None] = NO_DATES
    ) -> Iterator[tuple[str, ...]]:
        """See `Retriever.first`; no date is used, because a `Scorer` sees none."""
        for history in histories:
            seen = set(history)
            eligible = [item for item in self.catalogue if item not in seen]
            scores = np.asarray(self.scorer.scores(history, eligible), dtype=float)
            best = first_by_score(scores, k, tie_seed=seed_of("retrieve", *history))
            yield tuple(eligible[place] for place in best)

    def beside(self, outside: Mapping[str, NDArray[np.floating]]) -> OneByOne:
        """See `Retriever.beside`; other scorers than priors read no texts."""
        return OneByOne(self.scorer.beside(outside), self.catalogue) if isinstance(self.scorer, PriorV2) else self
