"""Content neighbours: the items of the catalogue whose texts are nearest to an item's, found when first asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from programs.prior.scorers import ContentSimilarity
from programs.runtime.errors import InputError

_BLOCK = 64
"""Items per matrix product. Always as many, so that an item's cosines do not depend on what else is asked for."""


class ContentNeighbours:
    """The `nearest` other items by cosine, each weighted by its cosine to the power of three, or 0 if negative.

    Thread-safe: two threads may do the same work, with the same result.
    """

    def __init__(self, content: ContentSimilarity, nearest: int = 50) -> None:
        if nearest < 1:
            raise InputError(f"content neighbours: nearest={nearest} must be >= 1")
        self.content = content
        self.nearest = min(nearest, max(0, len(content.rows) - 1))
        self._rows: dict[str, NDArray[np.intp]] = {}
        self._weights: dict[str, NDArray[np.float64]] = {}

    def of(self, items: Sequence[str]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Neighbours of items with vectors.

        Args:
            items: n ids of items of `content`.

        Returns:
            Rows of `content.matrix` and their weights, each of shape (n, nearest).
        """
        self.prepare(items)
        shape = (len(items), self.nearest)
        rows = np.array([self._rows[item] for item in items], dtype=np.intp).reshape(shape)
        weights = np.array([self._weights[item] for item in items], dtype=float).reshape(shape)
        return rows, weights

    def prepare(self, items: Iterable[str]) -> None:
        """Find the neighbours of many items at once, which is faster than a few at a time; others are left out."""
        rows = self.content.rows
        missing = [item for item in dict.fromkeys(items) if item in rows and item not in self._weights]
        for start in range(0, len(missing), _BLOCK):
            self._find(missing[start : start + _BLOCK])

    def _find(self, items: Sequence[str]) -> None:
        matrix = self.content.matrix
        own = np.array([self.content.rows[item] for item in items])
        block = np.zeros((_BLOCK, matrix.shape[1]), dtype=matrix.dtype)
        block[: len(own)] = matrix[own]
        cosines = (block @ matrix.T)[: len(own)]
        cosines[np.arange(len(own)), own] = -np.inf
        if self.nearest:
            nearest = np.argpartition(-cosines, self.nearest - 1, axis=1)[:, : self.nearest]
        else:
            nearest = np.zeros((len(own), 0), dtype=np.intp)
        found = np.clip(np.take_along_axis(cosines, nearest, axis=1).astype(float), 0, None) ** 3
        for item, rows, weights in zip(items, nearest, found, strict=True):
            self._rows[item] = rows
            self._weights[item] = weights
