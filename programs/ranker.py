"""The `Ranker` interface, and rankings from scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from signatures.rows import Case, Ranking, seed_of


@runtime_checkable
class Ranker(Protocol):
    """Ranks the candidates of one case."""

    def rank(self, case: Case) -> Ranking:
        """Rank all candidates of `case`; thread-safe.

        An unparsable answer is reported in the ranking. Failures of the infrastructure are raised: the run loop counts
        the user as unresolved, and the next session tries again.
        """
        ...


@runtime_checkable
class BatchRanker(Ranker, Protocol):
    """Ranks many cases at once, faster than one after the other."""

    def rank_many(self, cases: Sequence[Case]) -> list[Ranking]:
        """Rank the candidates of every case, in the order of the cases; each as `rank` would."""
        ...


def order_by_score(candidates: Sequence[str], scores: Sequence[float], tie_seed: int) -> tuple[str, ...]:
    """Candidates by descending score, ties in a seeded random order, NaN last.

    Args:
        candidates: n item ids.
        scores: n scores aligned with them.
        tie_seed: Decides ties: the input order must not (docs/protocol.md).

    >>> order_by_score(["a", "b", "c"], [0.1, 0.9, 0.5], tie_seed=0)
    ('b', 'c', 'a')
    """
    values = np.asarray(scores, dtype=float)
    if len(values) != len(candidates):
        raise ValueError(f"{len(values)} scores for {len(candidates)} candidates")
    values = np.where(np.isnan(values), -np.inf, values)
    shuffle = np.random.default_rng(tie_seed).random(len(values))
    return tuple(candidates[i] for i in np.lexsort((shuffle, -values)))


def first_by_score(scores: NDArray[np.floating], k: int, tie_seed: int) -> NDArray[np.intp]:
    """Places of the first k candidates in the order of `order_by_score`, without sorting the rest.

    Args:
        scores: n finite scores.

    >>> first_by_score(np.array([0.1, 0.9, 0.5]), k=2, tie_seed=0).tolist()
    [1, 2]
    """
    n = len(scores)
    shuffle = np.random.default_rng(tie_seed).random(n)
    lowest = np.partition(scores, n - k)[n - k] if k < n else -np.inf
    chosen = np.flatnonzero(scores >= lowest)
    return chosen[np.lexsort((shuffle[chosen], -scores[chosen]))][:k]


def ranking_from_scores(case: Case, scores: Mapping[str, Sequence[float]], by: str) -> Ranking:
    """A ranking by the component `by`; ties are broken by a seed of the user id."""
    return Ranking(
        user_id=case.user_id,
        order=order_by_score(case.candidates, scores[by], tie_seed=seed_of("ties", case.user_id)),
        scores={name: [float(s) for s in vector] for name, vector in scores.items()},
    )
