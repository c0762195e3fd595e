"""`nobody-has-it-first`: the baseline that shows whether candidate lists give the target away by its popularity."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from signatures.rows import Case, seed_of

NOBODY_FIRST = "nobody-has-it-first"


@dataclass(frozen=True)
class NobodyHasItFirst:
    """Items without a user in the training data before all others; random order within both.

    It knows nothing about users. So where it is above chance, the lists give the target away: the target of item
    cold-start is an item nobody has, and among uniform negatives nearly all have users.

    Attributes:
        known: Items with a user in the training data.
    """

    known: Container[str]

    def scores(self, history: Sequence[str], candidates: Sequence[str]) -> NDArray[np.float64]:
        """See `programs.prior.scorers.Scorer`: 1 to 2 for items that nobody has, 0 to 1 for others."""
        unknown = np.array([item not in self.known for item in candidates], dtype=float)
        return unknown + np.random.default_rng(seed_of(NOBODY_FIRST, *history, *candidates)).random(len(candidates))


def unknown_share(cases: Sequence[Case], known: Container[str]) -> float:
    """Share of the candidates that no user of the training data has."""
    return float(np.mean([item not in known for case in cases for item in case.candidates]))


def expected_hit_rate(cases: Sequence[Case], known: Container[str], k: int = 5) -> float:
    """Mean HR@k of `NobodyHasItFirst` over all of its random orders.

    Args:
        cases: Cases with targets.
        known: Items with a user in the training data.

    >>> case = Case(user_id="u", history=(), candidates=("a", "b", "new", "newer"), target="new")
    >>> expected_hit_rate([case], {"a", "b"}, k=1), expected_hit_rate([case], {"a", "new"}, k=3)
    (0.5, 0.5)
    """
    rates = []
    for case in cases:
        unknown = sum(item not in known for item in case.candidates)
        # The target is at a random place among those that are like it.
        before, alike = (unknown, len(case.candidates) - unknown) if case.target in known else (0, unknown)
        rates.append(min(1.0, max(0.0, (k - before) / alike)))
    return float(np.mean(rates))
