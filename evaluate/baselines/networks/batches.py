"""Random batches of an epoch: every example once, as arrays of the examples' numbers."""

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


def _cut(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(order), size):
        yield order[start : start + size]
