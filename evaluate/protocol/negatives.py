"""Negative sampling: uniform, in proportion to popularity, or matched in popularity with the positive."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evaluate.protocol.protocol import Sampling
from signatures.rows import seed_of

_SPARE = 4
"""Matched negatives are drawn from this many times as many items, or all items of the same popularity if more."""


class NegativeSampler:
    """Draws distinct items that a user has no interaction with.

    Args:
        pool: Items that may be negatives, in a fixed order.
        popularity: Users per item in the training data; 0 for absent items.
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
        """n items outside `own` (which contains the target), in random order.

        Fewer if the pool has fewer, or, by popularity, if fewer items have users.
        """
        if self.sampling == "matched":
            return self._matched(rng, target, own)
        if self.sampling == "popularity":
            drawn = self._by_popularity(rng, len(own))
        else:
            # Uniform over the other items: draw |own| too many, then drop the own ones.
            drawn = rng.choice(len(self.pool), size=min(len(self.pool), self.n + len(own)), replace=False)
        return [item for item in self.pool[drawn] if item not in own][: self.n]

    @cached_property
    def _log_counts(self) -> NDArray[np.float64]:
        with np.errstate(divide="ignore"):
            return np.log(self._counts)

    def _by_popularity(self, rng: np.random.Generator, spare: int) -> NDArray[np.intp]:
        # Gumbel top-k trick: the largest log-weights plus noise are a weighted draw without replacement.
        keys = self._log_counts + rng.gumbel(size=len(self.pool))
        n = min(len(keys), self.n + spare)
        largest = np.argpartition(keys, len(keys) - n)[len(keys) - n :]
        first = largest[np.argsort(-keys[largest])]
        return first[np.isfinite(keys[first])]

    def _matched(self, rng: np.random.Generator, target: str, own: Collection[str]) -> list[str]:
        around = self._around(rng, self._count_of.get(target, 0.0), len(own))
        near = [item for item in self.pool[around] if item not in own]
        return [near[i] for i in rng.permutation(len(near))[: self.n]]

    def _around(self, rng: np.random.Generator, count: float, spare: int) -> NDArray[np.intp]:
        """Items of the same popularity and, if these are too few, the neighbours in the order of popularity.

        The number from each side is random: with equal numbers the positive would always be in the middle by
        popularity, and taking the nearest counts would take most from one side.
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
        """The pool by popularity, ties in a fixed random order."""
        shuffle = np.random.default_rng(seed_of("matched", 0.0)).random(len(self.pool))
        return np.lexsort((shuffle, self._counts))

    @cached_property
    def _ascending_counts(self) -> NDArray[np.float64]:
        return self._counts[self._ascending]
