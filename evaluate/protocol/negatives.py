"""Negatives of a list: uniform, by popularity, or as popular as the positive."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evaluate.protocol.protocol import Sampling
from signatures.rows import seed_of

_SPARE = 4
"""Matched negatives are drawn among this many times as many items, or all that are exactly as popular if more."""


class NegativeSampler:
    """Draws distinct items a user never touched.

    Args:
        pool: Items that may be negatives, in a fixed order.
        popularity: Users per item in the training data; absent items have none.
        sampling: How items are weighted.
        n: Items per draw.
    """

    def __init__(self, pool: Sequence[str], popularity: Mapping[str, int], sampling: Sampling, n: int) -> None:
        self.pool = np.array(pool, dtype=object)
        self.sampling = sampling
        self.n = n
        self._counts = np.array([popularity.get(item, 0) for item in pool], dtype=float)
        self._count_of = dict(zip(pool, self._counts, strict=True))

    def draw(self, rng: np.random.Generator, target: str, own: Collection[str]) -> list[str]:
        """n items, none of them in `own`, which holds the target; in random order.

        Fewer where the pool has fewer, or by popularity, where fewer of the others have any users.
        """
        if self.sampling == "matched":
            return self._matched(rng, target, own)
        if self.sampling == "popularity":
            drawn = self._by_popularity(rng, len(own))
        else:
            # Drawing |own| too many and dropping the own ones is uniform over the rest, without a set difference.
            drawn = rng.choice(len(self.pool), size=min(len(self.pool), self.n + len(own)), replace=False)
        return [item for item in self.pool[drawn] if item not in own][: self.n]

    @cached_property
    def _log_counts(self) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):
            return np.log(self._counts)

    def _by_popularity(self, rng: np.random.Generator, spare: int) -> NDArray[np.intp]:
        # The largest log-weights plus Gumbel noise are a draw without replacement in proportion to the weights.
        keys = self._log_counts + rng.gumbel(size=len(self.pool))
        first = np.argsort(-keys)[: self.n + spare]
        return first[np.isfinite(keys[first])]

    def _matched(self, rng: np.random.Generator, target: str, own: Collection[str]) -> list[str]:
        around = self._around(rng, self._count_of.get(target, 0.0), len(own))
        near = [item for item in self.pool[around] if item not in own]
        return [near[i] for i in rng.permutation(len(near))[: self.n]]

    def _around(self, rng: np.random.Generator, count: float, spare: int) -> NDArray[np.intp]:
        """Items of that popularity and, where they are too few, neighbours by rank, from both sides at random.

        How many come from which side is drawn: were they as many above as below, the positive would stand in the middle
        by popularity, never first; and of the nearest in numbers of users, most are on one side.
        """
        first = int(np.searchsorted(self._ascending_counts, count, "left"))
        last = int(np.searchsorted(self._ascending_counts, count, "right"))
        missing = max(0, _SPARE * self.n + spare - (last - first))
        if not missing:
            return self._ascending[first:last]
        least, most = max(0, missing - (len(self.pool) - last)), min(first, missing)
        below = int(rng.integers(least, most + 1)) if least <= most else first
        return self._ascending[first - below : last + missing - below]

    @cached_property
    def _ascending(self) -> NDArray[np.intp]:
        """The pool by popularity, equals in a random order that is always the same."""
        shuffle = np.random.default_rng(seed_of("matched", 0.0)).random(len(self.pool))
        return np.lexsort((shuffle, self._counts))

    @cached_property
    def _ascending_counts(self) -> NDArray[np.float64]:
        return self._counts[self._ascending]
