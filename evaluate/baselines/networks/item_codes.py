"""Item codes: short sequences of tokens in place of item ids, for recommenders that write them token by token."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.cluster.vq import kmeans2
from scipy.sparse.linalg import svds

ItemCode = tuple[int, ...]
"""Tokens of one item, each from 0 to `ItemCodes.tokens` - 1."""

FIRST_NUMBER = 1001
"""P5 numbers items from here, so that no number is a single token."""


@dataclass(frozen=True)
class ItemCodes:
    """A code for every item, each once.

    Attributes:
        of: Code by item id.
        tokens: Number of different tokens.
    """

    of: Mapping[str, ItemCode]
    tokens: int

    @cached_property
    def sha256(self) -> str:
        """Hash of the codes: a network is of use only with those that it was trained on."""
        return hashlib.sha256(json.dumps([*self.of.items()]).encode()).hexdigest()


def sequential_codes(histories: Iterable[Sequence[str]], others: Iterable[str] = ()) -> ItemCodes:
    """Codes that are the digits of item numbers, two to a token: items are numbered as they first occur.

    Items that follow each other in a history so get similar codes. The histories must therefore end before the items
    that a recommender is judged on: in P5's published data they did not, and the number of the target was often the
    next one.

    Args:
        histories: Item ids, oldest first.
        others: Further items; they are numbered last, in the order of their ids, which says nothing about histories.

    >>> sequential_codes([["b", "a"], ["a", "c"]]).of
    {'b': (10, 1), 'a': (10, 2), 'c': (10, 3)}
    """
    seen = dict.fromkeys(item for history in histories for item in history)
    numbers = {item: FIRST_NUMBER + place for place, item in enumerate([*seen, *sorted({*others} - {*seen})])}
    return ItemCodes({item: tuple(_pairs(str(number))) for item, number in numbers.items()}, tokens=110)


def _pairs(digits: str) -> Iterator[int]:
    """Two digits are a token from 0 to 99; a single one at the end is another token, from 100 to 109."""
    for start in range(0, len(digits), 2):
        pair = digits[start : start + 2]
        yield int(pair) if len(pair) == 2 else 100 + int(pair)


def collaborative_codes(
    histories: Sequence[Sequence[str]], others: Iterable[str] = (), dimensions: int = 32, size: int = 24
) -> ItemCodes:
    """Codes of three tokens by clusters of the co-occurrence matrix: group, cluster within it, number in the cluster.

    Spectral clustering: k-means on the eigenvectors of the normalised co-occurrence matrix D^-1/2 C D^-1/2, with
    C(i, j) = sum over users who have both items of 1 / (number of their items). The eigenvectors are the singular
    vectors of the matrix of users by items, so that C, items by items, is never built.

    Args:
        histories: Item ids, oldest first; they must end before the items that a recommender is judged on.
        others: Further items, of which no history may tell anything: their vectors are zero.
        dimensions: Number of eigenvectors.
        size: Mean number of items in a cluster.
    """
    counts = Counter(item for history in histories for item in history)
    items = sorted({*counts, *others})
    rows = {item: row for row, item in enumerate(items)}
    sets = [[rows[item] for item in dict.fromkeys(history)] for history in histories if history]
    return cluster_codes(items, _spectral(sets, len(items), dimensions), [counts[item] for item in items], size)


def _spectral(sets: Sequence[Sequence[int]], items: int, dimensions: int) -> NDArray[np.float64]:
    """The leading eigenvectors of the normalised co-occurrence matrix, rows of length 1 or 0, shape (items, d)."""
    sizes = [len(own) for own in sets]
    columns, users = np.concatenate([np.asarray(own) for own in sets]), np.repeat(np.arange(len(sets)), sizes)
    weights = np.repeat([size**-0.5 for size in sizes], sizes)
    matrix = sparse.csr_array((weights, (users, columns)), shape=(len(sets), items))
    degrees = np.asarray(matrix.T @ (matrix @ np.ones(items)))
    matrix = matrix @ sparse.diags_array(np.where(degrees > 0, np.maximum(degrees, 1e-12) ** -0.5, 0.0))
    most = min(matrix.shape) - 1
    if most < 1:
        return np.zeros((items, 1))
    # A fixed start: the same data always give the same codes.
    start = np.random.default_rng(0).random(min(matrix.shape))
    vectors = svds(matrix, k=min(dimensions, most), v0=start)[2].T
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(lengths > 1e-9, vectors / np.maximum(lengths, 1e-9), 0.0)


def cluster_codes(items: Sequence[str], vectors: NDArray[np.float64], counts: Sequence[int], size: int) -> ItemCodes:
    """Codes of three tokens from clusters of clusters of item vectors.

    The third token is the place of the item in its cluster by falling number of purchases, so that small numbers are
    popular items in every cluster. Every first and every second token belongs to one part of the catalogue.

    Args:
        items: n item ids.
        vectors: Shape (n, d).
        counts: Purchases of each item, in the training data.
        size: Mean number of items in a cluster. There are as many groups as clusters in a group, or fewer.
    """
    clusters = -(-len(items) // size)
    groups = _clusters(np.arange(len(items)), vectors, round(clusters**0.5))
    parts = [
        (group, part)
        for group, whole in enumerate(groups)
        for part in _clusters(whole, vectors, -(-len(whole) // size))
    ]
    codes = {}
    for cluster, (group, part) in enumerate(parts):
        ranked = sorted(part.tolist(), key=lambda row: (-counts[row], items[row]))
        for place, row in enumerate(ranked):
            codes[items[row]] = (group, len(groups) + cluster, len(groups) + len(parts) + place)
    return ItemCodes(codes, len(groups) + len(parts) + max(len(part) for _, part in parts))


def semantic_codes(items: Sequence[str], vectors: NDArray[np.floating], size: int) -> ItemCodes:
    """Codes of four tokens by the texts of items: residual k-means three times, then a number among equal codes.

    Every step clusters what the centres of the steps before leave unexplained.

    Args:
        items: n item ids.
        vectors: Shape (n, d): vectors of the texts.
        size: Most clusters of a step; at most the square root of n, so that items share tokens.
    """
    size = max(1, min(size, round(len(items) ** 0.5)))
    left, labels = np.array(vectors, dtype=np.float64), np.zeros((len(items), 3), dtype=np.int64)
    for step in range(labels.shape[1]):
        for label, rows in enumerate(_clusters(np.arange(len(items)), left, size)):
            labels[rows, step] = step * size + label
            left[rows] -= left[rows].mean(axis=0)
    equal: Counter[tuple[int, ...]] = Counter()
    codes = {}
    for row in sorted(range(len(items)), key=lambda row: items[row]):
        first = tuple(labels[row].tolist())
        codes[items[row]] = (*first, 3 * size + equal[first])
        equal[first] += 1
    return ItemCodes(codes, 3 * size + max(equal.values()))


def _clusters(rows: NDArray[np.intp], vectors: NDArray[np.float64], most: int) -> list[NDArray[np.intp]]:
    """At most so many clusters of some rows, by k-means; none is empty."""
    if most < 2:
        return [rows]
    distinct, same = np.unique(vectors[rows], axis=0, return_inverse=True)
    labels: NDArray[np.integer] = same.ravel()
    if len(distinct) > most:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty cluster is left out below
            labels = kmeans2(vectors[rows], most, iter=30, minit="++", rng=np.random.default_rng(0))[1]
    return [rows[labels == label] for label in np.unique(labels)]
