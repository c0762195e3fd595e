"""Graph of the nearest texts of a large catalogue: made once, kept in the cache folder, mapped into memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from programs.prior.encoders import Vectors
from programs.prior.nearest import nearest_neighbours
from programs.prior.scorers import NEIGHBOURS
from programs.runtime.atomic import replacing
from programs.runtime.environment import cache_dir
from programs.runtime.events import Note, OnEvent, Progress, ignore

EDGE = np.dtype([("row", "<i4"), ("cosine", "<f4")])
"""An item's neighbour: its row among the vectors, and its cosine."""

TextGraph = NDArray[np.void]
"""Neighbours of n vectors as `EDGE`s, shape (n, `NEIGHBOURS`), nearest first."""

_VERSION = "1"
"""Of what a graph holds: another one is another file."""

_CHECKED = 256
"""Items whose cosines are computed again when a graph is opened."""


def graph_path(vectors: Vectors) -> Path:
    """The file of the graph of these vectors; its name is a hash of their content."""
    digest = hashlib.sha256(f"{_VERSION} {vectors.dtype} {vectors.shape}".encode())
    digest.update(np.ascontiguousarray(vectors).data)
    return cache_dir() / "neighbours" / f"{digest.hexdigest()[:32]}.npy"


def neighbour_graph(vectors: Vectors, on_event: OnEvent = ignore) -> TextGraph:
    """The graph of n unit vectors, from the cache folder; made first if it is missing or damaged.

    A file of the cache is not trusted: it has to have the right form, no row outside the vectors, and the cosines of
    the vectors. It is mapped into memory, not read.

    Args:
        vectors: Shape (n, d), n above `NEIGHBOURS`.
    """
    path = graph_path(vectors)
    if path.exists() and (graph := _opened(path, vectors)) is not None:
        return graph
    if path.exists():
        on_event(Note(f"{path}: not the neighbours of this catalogue's texts; they are found again"))
    return _made(path, vectors, on_event)


def _opened(path: Path, vectors: Vectors) -> TextGraph | None:
    if path.is_symlink() or not path.is_file():
        return None
    try:
        # A plain array: a memmap object is slower to index.
        graph: TextGraph = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
    return graph if _is_of(graph, vectors) else None


def _is_of(graph: TextGraph, vectors: Vectors) -> bool:
    n = len(vectors)
    if graph.dtype != EDGE or graph.shape != (n, NEIGHBOURS):
        return False
    # A cosine that is no number fails the comparison.
    if graph["row"].min() < 0 or graph["row"].max() >= n or not np.abs(graph["cosine"]).max() <= 1.001:
        return False
    some = np.random.default_rng().choice(n, min(n, _CHECKED), replace=False)
    cosines = np.einsum("nd,nkd->nk", vectors[some], vectors[graph["row"][some]])
    return np.allclose(cosines, graph["cosine"][some], atol=1e-3)


def _made(path: Path, vectors: Vectors, on_event: OnEvent) -> TextGraph:
    n = len(vectors)
    graph = np.empty((n, NEIGHBOURS), dtype=EDGE)
    finished, shown = 0, 0
    for found in nearest_neighbours(vectors, NEIGHBOURS):
        graph["row"][found.rows] = found.neighbours
        graph["cosine"][found.rows] = found.cosines
        finished += len(found.rows)
        if finished == n or finished - shown >= 10_000:
            shown = finished
            on_event(Progress("finding the nearest texts", finished, n))
    try:
        with replacing(path) as file:
            np.save(file, graph, allow_pickle=False)
    except OSError as error:
        on_event(Note(f"{error}: the nearest texts are found again next time"))
        return graph
    mapped = _opened(path, vectors)
    return graph if mapped is None else mapped
