"""Approximate nearest neighbours of all vectors, by inverted lists: k-means, then search in the nearest clusters."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from programs.prior.encoders import Vectors

LISTS_PER_ROOT = 4
"""Clusters for each square root of the number of vectors: the two steps of a search then cost about as much."""

PROBES = 48
"""Nearest clusters, its own included, in which the neighbours of a vector are looked for."""

_ITERATIONS = 4
_SAMPLE = 32
"""Vectors for each cluster from which k-means learns the centres."""

_BLOCK = 512
"""Vectors compared at a time."""


@dataclass(frozen=True)
class Clusters:
    """Clusters of n unit vectors.

    Attributes:
        centres: Unit vectors, shape (clusters, d).
        members: Rows of the vectors, cluster by cluster, shape (n,).
        bounds: Cluster c has the members from bounds[c] up to bounds[c + 1].
    """

    centres: Vectors
    members: NDArray[np.intp]
    bounds: NDArray[np.intp]

    def of(self, cluster: int) -> NDArray[np.intp]:
        """The rows of a cluster."""
        return self.members[self.bounds[cluster] : self.bounds[cluster + 1]]


@dataclass(frozen=True)
class Found:
    """Neighbours of m vectors.

    Attributes:
        rows: Rows of the vectors, shape (m,).
        neighbours: Rows of their neighbours, nearest first, shape (m, k).
        cosines: Of the same shape.
    """

    rows: NDArray[np.intp]
    neighbours: NDArray[np.intp]
    cosines: Vectors


def clusters_of(vectors: Vectors) -> Clusters:
    """Spherical k-means on a sample, then every vector in the cluster of its nearest centre; the same every time."""
    n = len(vectors)
    count = min(n, round(LISTS_PER_ROOT * n**0.5))
    rng = np.random.default_rng(0)
    sample = vectors[np.sort(rng.choice(n, min(n, _SAMPLE * count), replace=False))]
    centres = sample[rng.choice(len(sample), count, replace=False)]
    for _ in range(_ITERATIONS):
        members, bounds = _grouped(_nearest_centre(sample, centres), count)
        filled = np.flatnonzero(np.diff(bounds))
        centres[filled] = np.add.reduceat(sample[members], bounds[filled], axis=0)
        centres /= np.maximum(np.linalg.norm(centres, axis=1, keepdims=True), 1e-12)
    return Clusters(centres, *_grouped(_nearest_centre(vectors, centres), count))


def nearest_neighbours(vectors: Vectors, k: int) -> Iterator[Found]:
    """The k nearest other vectors of every vector, some of them missed; cluster by cluster.

    Args:
        vectors: n unit vectors, shape (n, d).
        k: Less than n.
    """
    clusters = clusters_of(vectors)
    for cluster in range(len(clusters.centres)):
        yield from _neighbours_in(vectors, clusters, cluster, k)


def _neighbours_in(vectors: Vectors, clusters: Clusters, cluster: int, k: int) -> Iterator[Found]:
    """The neighbours of the members of a cluster, among those of the clusters with the nearest centres."""
    own = clusters.of(cluster)
    nearness = clusters.centres @ clusters.centres[cluster]
    nearness[cluster] = np.inf
    by_nearness = np.argsort(-nearness)
    reached = np.cumsum(np.diff(clusters.bounds)[by_nearness])
    # More of them where the nearest have too few members.
    probes = max(PROBES, 1 + int(np.searchsorted(reached, k + 1)))
    among = np.concatenate([clusters.of(near) for near in by_nearness[:probes]])
    others = vectors[among].T
    for start in range(0, len(own), _BLOCK):
        rows = own[start : start + _BLOCK]
        cosines = vectors[rows] @ others
        itself = np.arange(len(rows))
        cosines[itself, start + itself] = -np.inf
        best = np.argpartition(cosines, -k, axis=1)[:, -k:]
        near = np.take_along_axis(cosines, best, axis=1)
        order = np.argsort(-near, axis=1)
        yield Found(rows, among[np.take_along_axis(best, order, axis=1)], np.take_along_axis(near, order, axis=1))


def _nearest_centre(vectors: Vectors, centres: Vectors) -> NDArray[np.intp]:
    return np.concatenate([(vectors[at : at + 4096] @ centres.T).argmax(axis=1) for at in range(0, len(vectors), 4096)])


def _grouped(cluster: NDArray[np.intp], count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    members = np.argsort(cluster, kind="stable")
    return members, np.searchsorted(cluster[members], np.arange(count + 1))
