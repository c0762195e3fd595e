"""Retrieval from a large catalogue: time to build, time a user, agreement with exact search, and memory.

`python benchmarks/retrieval.py [--items N] [--users N] [--interactions N] [--measured N]` prints one JSON line a step.
Vectors and interactions are invented. Vectors have 384 dimensions and come in families within categories, with cosines
like those of MiniLM's vectors of 26,758 shop texts: .82 to the nearest (MiniLM .85), .66 to the fiftieth (.65), .21 to
the median (.18). Items have users by a power law, and 70% of a user's purchases are of one group of items. The graph of
neighbours is kept in the cache folder, where a second run finds it: to time its build, set MLLM3REC_CACHE to an empty
folder.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["OMP_NUM_THREADS"] = "1"  # before numpy: one core a user

import numpy as np
from numpy.typing import NDArray

from programs.prior.approximate_scores import ApproximateScores
from programs.prior.neighbour_graph import graph_path, neighbour_graph
from programs.prior.prior import Prior
from programs.prior.random_walk import RandomWalk
from programs.prior.scorers import ContentSimilarity, Popularity

DIMENSIONS = 384
CATEGORIES = 200
FAMILY = 40
EXACT_USERS = 20
K = 30


def main() -> None:
    """Invent, build, measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--users", type=int)
    parser.add_argument("--interactions", type=int)
    parser.add_argument("--measured", type=int, default=300)
    options = parser.parse_args()
    users, interactions = options.users or 2 * options.items, options.interactions or 10 * options.items
    items = [f"i{n}" for n in range(options.items)]
    with step("invent"):
        vectors = invented_vectors(len(items))
        histories = invented_histories(items, users, interactions)
    with step("fit the prior", interactions=sum(map(len, histories.values()))):
        content = ContentSimilarity.of(items, vectors)
        prior = Prior(RandomWalk(histories, items), content, Popularity.fit(histories))
    known = graph_path(vectors).exists()
    with step("open the graph" if known else "build the graph"):
        graph = neighbour_graph(vectors)
    with step("build the rest"):
        retriever = ApproximateScores(prior, items)
    show("index", graph_mib=round(graph.nbytes / 2**20), walk_mib=round(retriever.walk.nbytes / 2**20))
    rng = np.random.default_rng(1)
    some = [histories[f"u{n}"] for n in rng.choice(users, options.measured, replace=False)]
    latencies(retriever, some)
    show("peak memory", mib=peak())
    asked = rng.choice(len(items), 200, replace=False)
    with step("exact neighbours of 200 items"):
        nearest = np.argsort(-(vectors[asked] @ vectors.T), axis=1)[:, : 1 + graph.shape[1]]
    agree = [len(set(g["row"]) & set(e)) / len(g) for g, e in zip(graph[asked], nearest, strict=True)]
    show("graph", recall_at_50=round(float(np.mean(agree)), 3))
    with step(f"exact search for {EXACT_USERS} users"):
        exact = retriever.exact(some[:EXACT_USERS], 100)
    found = retriever.first(some[:EXACT_USERS], 100)
    pairs = list(zip(exact, found, strict=True))
    show("A_u", **{f"recall_at_{k}": round(recall(pairs, k), 3) for k in (15, 30, 100)})


def latencies(retriever: ApproximateScores, histories: list[list[str]]) -> None:
    """Time users one at a time, as a service would; the first tenth is not counted."""
    wall, cpu = [], []
    for history in histories:
        before, cpu_before = time.perf_counter(), time.process_time()
        next(retriever.first([history], K))
        wall.append(1000 * (time.perf_counter() - before))
        cpu.append(1000 * (time.process_time() - cpu_before))
    for name, times in (("wall", wall), ("cpu", cpu)):
        counted = times[len(times) // 10 :]
        p50, p95 = np.quantile(counted, [0.5, 0.95])
        show(f"{name} ms a user", n=len(counted), p50=round(float(p50), 2), p95=round(float(p95), 2))


def recall(pairs: list[tuple[tuple[str, ...], tuple[str, ...]]], k: int) -> float:
    """Mean share of the first k of exact search among the first k found."""
    return float(np.mean([len(set(exact[:k]) & set(found[:k])) / k for exact, found in pairs]))


def invented_vectors(n: int) -> NDArray[np.float32]:
    """Unit vectors, shape (n, DIMENSIONS): a common mean, categories, families of skewed size, an own part."""
    rng = np.random.default_rng(0)
    index = np.arange(DIMENSIONS)
    scale = ((1 + index) ** -0.275 * np.exp(-index / 360)).astype(np.float32)
    scale /= np.linalg.norm(scale)

    def parts(count: int, share: float) -> NDArray[np.float32]:
        drawn: NDArray[np.float32] = rng.standard_normal((count, DIMENSIONS), dtype=np.float32)
        return drawn * scale * np.float32(share**0.5)

    families = max(1, n // FAMILY)
    centres = parts(families, 0.3) + parts(CATEGORIES, 0.25)[rng.integers(CATEGORIES, size=families)]
    centres += parts(1, 0.21)
    sizes = rng.pareto(1.5, families) + 0.3
    family = rng.choice(families, n, p=sizes / sizes.sum())
    vectors = np.empty((n, DIMENSIONS), dtype=np.float32)
    for start in range(0, n, 50_000):
        own = centres[family[start : start + 50_000]]
        own = own + parts(len(own), 0.24)
        vectors[start : start + len(own)] = own / np.linalg.norm(own, axis=1, keepdims=True)
    return vectors


def invented_histories(items: list[str], users: int, interactions: int) -> dict[str, list[str]]:
    """Item ids by user: lognormal lengths; items by popularity, 70% of them from the user's group."""
    rng = np.random.default_rng(0)
    n = len(items)
    weights = rng.permutation((1.0 + np.arange(n)) ** -0.75)
    group = rng.integers(CATEGORIES, size=n)
    by_group = np.argsort(group, kind="stable")
    bounds = np.searchsorted(group[by_group], np.arange(CATEGORIES + 1))
    within, everywhere = np.append(0, np.cumsum(weights[by_group])), np.cumsum(weights)
    lengths = np.minimum(300, rng.lognormal(1.1, 0.95, users))
    lengths = np.maximum(1, np.round(lengths * interactions / lengths.sum())).astype(np.intp)
    taste = np.repeat(rng.integers(CATEGORIES, size=users), lengths)
    draw = rng.random(len(taste))
    low, high = within[bounds[taste]], within[bounds[taste + 1]]
    chosen = by_group[np.minimum(n - 1, np.searchsorted(within[1:], low + draw * (high - low), side="right"))]
    anything = np.minimum(n - 1, np.searchsorted(everywhere, draw * everywhere[-1]))
    chosen = np.where(rng.random(len(taste)) < 0.7, chosen, anything)
    ends = np.cumsum(lengths)
    return {f"u{n}": [items[i] for i in chosen[e - m : e]] for n, (e, m) in enumerate(zip(ends, lengths, strict=True))}


@contextmanager
def step(name: str, **facts: object) -> Iterator[None]:
    """Print the wall and CPU seconds of a step."""
    before, cpu_before = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - before, time.process_time() - cpu_before
    show(name, **facts, seconds=round(wall, 1), cpu_seconds=round(cpu, 1), peak_mib=peak())


def show(name: str, **facts: object) -> None:
    """Print one line."""
    print(json.dumps({"step": name, **facts}), flush=True)


def peak() -> int:
    """Largest memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
