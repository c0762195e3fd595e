"""Batches: the examples of an epoch in random order, as arrays of their numbers, and sequences of one batch padded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray


def shuffled_batches(count: int, size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """The numbers from 0 to `count` - 1 in a random order, `size` at a time; the last batch may be smaller."""
    return _cut(rng.permutation(count), size)


def batches_by_length(lengths: Sequence[int], size: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Random batches of examples of about equal length, in a random order, to keep padding small.

    Args:
        lengths: Length of each example.
        size: Examples per batch.
    """
    order = rng.permutation(len(lengths))
    order = order[np.argsort([lengths[number] for number in order], kind="stable")]
    batches = list(_cut(order, size))
    for number in rng.permutation(len(batches)):
        yield batches[number]


def padded(rows: Sequence[Sequence[int] | NDArray[np.int64]], padding: int) -> NDArray[np.int64]:
    """Sequences as one array, padded at the end; many times as fast as torch's `pad_sequence`.

    >>> padded([[1, 2], [3]], padding=0).tolist()
    [[1, 2], [3, 0]]
    """
    out = np.full((len(rows), max(map(len, rows))), padding, dtype=np.int64)
    for place, row in zip(out, rows, strict=True):
        place[: len(row)] = row
    return out


def _cut(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
