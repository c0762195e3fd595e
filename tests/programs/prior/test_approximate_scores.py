"""Retrieval from large catalogues: the graph of nearest texts, the short walk, and the pool."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from programs.prior import approximate_scores, nearest, retrieval
from programs.prior.approximate_scores import ApproximateScores
from programs.prior.catalogue_scores import CatalogueScores
from programs.prior.nearest import nearest_neighbours
from programs.prior.neighbour_graph import EDGE, graph_path, neighbour_graph
from programs.prior.past_sales import SECONDS_PER_DAY, PastSales
from programs.prior.prior import Prior
from programs.prior.random_walk import RandomWalk
from programs.prior.retrieval import retriever_of
from programs.prior.scorers import NEIGHBOURS
from programs.prior.short_walk import ShortWalk
from programs.runtime.events import Event, Note
from tests.support.invented import invented_prior

IDS = [f"i{n}" for n in range(150)]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path))


def vectors(n: int, seed: int = 0) -> NDArray[np.float32]:
    """Unit vectors in groups of twenty."""
    rng = np.random.default_rng(seed)
    drawn = np.repeat(rng.normal(size=(1 + n // 20, 16)), 20, axis=0)[:n] + 0.6 * rng.normal(size=(n, 16))
    unit: NDArray[np.float32] = (drawn / np.linalg.norm(drawn, axis=1, keepdims=True)).astype(np.float32)
    return unit


class TestNearestNeighbours:
    @pytest.mark.parametrize("n", [60, 700])
    def test_nearly_all_are_found(self, n: int) -> None:
        drawn = vectors(n)
        cosines = drawn @ drawn.T
        np.fill_diagonal(cosines, -1)
        found = dict(
            pair for one in nearest_neighbours(drawn, 10) for pair in zip(one.rows, one.neighbours, strict=True)
        )
        assert sorted(found) == list(range(n))
        exact = np.argsort(-cosines, axis=1)[:, :10]
        assert np.mean([len(set(found[row]) & set(exact[row])) / 10 for row in range(n)]) > 0.95

    def test_nearest_first_with_their_cosines_and_never_the_item_itself(self) -> None:
        drawn = vectors(100)
        drawn[1] = drawn[0]  # two items with one text
        for one in nearest_neighbours(drawn, 99):
            assert not (one.neighbours == one.rows[:, None]).any()
            assert (np.diff(one.cosines, axis=1) <= 0).all()
            expected = np.einsum("nd,nkd->nk", drawn[one.rows], drawn[one.neighbours])
            np.testing.assert_allclose(one.cosines, expected, atol=1e-6)


class TestGraph:
    def test_it_is_made_once_and_mapped(self) -> None:
        drawn, told = vectors(200), []
        first = neighbour_graph(drawn, told.append)
        made = graph_path(drawn).stat()
        again = neighbour_graph(drawn, told.append)
        assert (first["row"] == again["row"]).all()
        assert graph_path(drawn).stat().st_mtime_ns == made.st_mtime_ns
        assert len(told) == 1  # its progress, when it was made
        assert isinstance(again.base, np.memmap)
        assert graph_path(drawn) != graph_path(vectors(200, seed=1))

    @pytest.mark.parametrize("damage", ["cut", "rows", "cosines", "numbers", "objects", "shape", "link", "folder"])
    def test_a_file_that_is_no_graph_of_these_texts_is_made_again(self, damage: str, tmp_path: Path) -> None:
        drawn = vectors(200)
        right = np.array(neighbour_graph(drawn))
        path = graph_path(drawn)
        spoil(path, right, damage, tmp_path)
        told: list[Event] = []
        again = neighbour_graph(drawn, told.append)
        assert (np.sort(again["row"]) == np.sort(right["row"])).all()
        assert isinstance(told[0], Note) and "they are found again" in told[0].text

    def test_a_cache_that_cannot_be_written_costs_only_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "neighbours").write_text("a file where the folder should be")
        told: list[Event] = []
        assert neighbour_graph(vectors(200), told.append).shape == (200, NEIGHBOURS)
        assert any(isinstance(event, Note) and "found again next time" in event.text for event in told)


def spoil(path: Path, right: NDArray[np.void], damage: str, elsewhere: Path) -> None:
    wrong = right.copy()
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
        return
    if damage == "objects":
        path.write_bytes(pickle.dumps("never loaded"))
        return
    if damage in ("link", "folder"):
        path.rename(elsewhere / "moved.npy")
        if damage == "link":
            path.symlink_to(elsewhere / "moved.npy")
        else:
            path.mkdir()
        return
    if damage == "rows":
        wrong["row"][7, 3] = 10**6
    elif damage == "cosines":
        wrong["row"] = np.roll(wrong["row"], 1, axis=0)
    elif damage == "numbers":
        wrong["cosine"][7, 3] = np.nan
    elif damage == "shape":
        wrong = wrong[:-1]
    with path.open("wb") as file:
        np.save(file, wrong.astype(EDGE), allow_pickle=False)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([*IDS[:40], "unlisted"]), max_size=25), st.integers(0, 10**6))
def test_with_all_steps_the_short_walk_is_the_whole_one(history: list[str], seed: int) -> None:
    walk = invented_prior(IDS[:40], users=30, seed=seed).walk
    scores = np.zeros(len(walk.columns), dtype=np.float32)
    reached = ShortWalk(walk, steps=40, starts=40).reach(history, scores)
    np.testing.assert_allclose(scores, walk.scores([history])[0], rtol=1e-4, atol=1e-6)
    assert sorted(reached) == np.flatnonzero(scores).tolist()


def test_the_strongest_steps_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("programs.prior.short_walk._ENTRIES", 50)  # several blocks
    walk = RandomWalk({"u": ["a", "b"], "v": ["a", "b", "c"], "w": ["a", "c", "d"], "x": ["e"]})
    every, two = (np.zeros(5, dtype=np.float32) for _ in range(2))
    ShortWalk(walk, steps=5, starts=1).reach(["a"], every)
    ShortWalk(walk, steps=2, starts=1).reach(["a"], two)
    assert sorted(np.flatnonzero(two)) == [walk.columns["a"], walk.columns["b"]]
    assert two[walk.columns["b"]] == every[walk.columns["b"]] > every[walk.columns["d"]] > 0


@pytest.fixture
def all_probed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The graph finds every neighbour, and the pool holds what the walk reaches."""
    monkeypatch.setattr(nearest, "PROBES", 10**6)
    return


@pytest.mark.usefixtures("all_probed")
def test_a_pool_of_everything_is_exact_search() -> None:
    prior = invented_prior(IDS[:140], users=100, seed=3)  # ten items have no vector and no user
    histories = [IDS[n : n + 1 + n % 7] for n in range(0, 100, 3)] + [["unlisted"], []]
    approximate = ApproximateScores(prior, IDS)
    exact = list(CatalogueScores(prior, IDS).first(histories, 10))
    assert approximate.exact(histories, 10) == exact
    found = list(approximate.first(histories, 10))
    assert found[:-2] == exact[:-2]  # nothing but popularity is known of the others: ties
    assert not any(set(history) & set(items) for history, items in zip(histories, found, strict=True))


@pytest.mark.usefixtures("all_probed")
def test_means_over_a_sample_lead_to_nearly_the_same_items(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approximate_scores, "SAMPLE", 60)
    for name, size in (("WALKED", 30), ("WALKED_TEXTS", 3), ("POPULAR", 20), ("FURTHER", 5)):
        monkeypatch.setattr(approximate_scores, name, size)
    ids = [f"i{n}" for n in range(1500)]
    prior = invented_prior(ids, users=800, seed=5, dimensions=24, groups=40)
    histories = [ids[n : n + 1 + n % 5] for n in range(0, 1000, 25)]
    approximate = ApproximateScores(prior, ids)
    pairs = zip(approximate.exact(histories, 10), approximate.first(histories, 10), strict=True)
    assert np.mean([len(set(exact) & set(found)) / 10 for exact, found in pairs]) > 0.8


@pytest.mark.usefixtures("all_probed")
def test_with_dates_a_pool_of_everything_is_exact_search_too() -> None:
    plain = invented_prior(IDS, users=100, seed=3)
    rng = np.random.default_rng(0)
    sold = {item: np.sort(rng.integers(0, 900, size=rng.integers(1, 30))) * SECONDS_PER_DAY for item in IDS}
    prior = Prior(plain.walk, plain.content, plain.popularity, PastSales(sold, days=365))
    histories = [IDS[n : n + 1 + n % 7] for n in range(0, 100, 3)]
    moments = [None if n % 5 == 0 else n * 30 * SECONDS_PER_DAY for n in range(len(histories))]
    found = list(ApproximateScores(prior, IDS).first(histories, 10, moments))
    assert found == list(CatalogueScores(prior, IDS).first(histories, 10, moments))
    assert found != list(ApproximateScores(prior, IDS).first(histories, 10))


def test_what_sold_best_lately_is_in_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WALKED", "POPULAR"):
        monkeypatch.setattr(approximate_scores, name, 1)
    plain = invented_prior(IDS, users=30, seed=3)
    rare = min(plain.popularity.counts, key=plain.popularity.counts.__getitem__)
    sold = {rare: np.array([500, 510]) * SECONDS_PER_DAY}
    prior = Prior(plain.walk, plain.content, plain.popularity, PastSales(sold, days=365))
    then, before = ApproximateScores(prior, IDS).first(
        [["unlisted"]] * 2, 100, [520 * SECONDS_PER_DAY, 490 * SECONDS_PER_DAY]
    )
    assert rare in then and rare not in before


@pytest.mark.parametrize("item", ["i0", "text:1"])  # with a vector and not in the catalogue; a free text
def test_a_text_of_the_users_own_has_neighbours_too(item: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WALKED", "POPULAR"):
        monkeypatch.setattr(approximate_scores, name, 1)
    prior = invented_prior(IDS, users=1, seed=3)
    prior.content.outside = {"text:1": prior.content.matrix[0]}
    (found,) = ApproximateScores(prior, IDS[1:]).first([[item]], 100)
    nearest_first = np.argsort(-(prior.content.matrix[1:] @ prior.content.matrix[0]))
    assert {f"i{1 + row}" for row in nearest_first[:NEIGHBOURS]} <= set(found)
    assert len(found) < 100


def test_large_catalogues_are_searched_approximately(monkeypatch: pytest.MonkeyPatch) -> None:
    prior = invented_prior(IDS, users=30, seed=0)
    assert isinstance(retriever_of(prior, IDS), CatalogueScores)
    monkeypatch.setattr(retrieval, "EXACT_ITEMS", 149)
    assert isinstance(retriever_of(prior, IDS), ApproximateScores)
    assert isinstance(retriever_of(prior, IDS[1:]), CatalogueScores)
    assert len([*graph_path(prior.content.matrix).parent.iterdir()]) == 1
