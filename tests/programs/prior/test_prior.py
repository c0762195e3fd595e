"""The prior against tables worked out by hand."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from programs.prior.past_sales import SECONDS_PER_DAY, PastSales
from programs.prior.prior import Prior
from programs.prior.random_walk import RandomWalk
from programs.prior.score_ranker import ScoreRanker
from programs.prior.scorers import ContentSimilarity, ItemKNN, Popularity, histories_of
from programs.prior.standard_scores import z
from programs.ranker import BatchRanker, Ranker
from programs.runtime.errors import InputError
from signatures.rows import Case
from signatures.types import Interaction
from tests.support.cases import case

# Users per item: a {u, v}, b {u, v, w}, c {v, w}, d {x}.
# cos(a, b) = 2/sqrt(6), cos(a, c) = 1/2, cos(b, c) = 2/sqrt(6); d shares nobody.
HISTORIES = {"u": ["a", "b"], "v": ["a", "b", "c"], "w": ["b", "c", "b"], "x": ["d"]}
AB = BC = 2 / sqrt(6)
AC = 1 / 2

# Cosines with the candidate p: 1, .8, .6, 0 and -1.
VECTORS = {
    "p": np.array([1.0, 0.0], dtype=np.float32),
    "q": np.array([0.8, 0.6], dtype=np.float32),
    "r": np.array([0.6, 0.8], dtype=np.float32),
    "s": np.array([0.0, 1.0], dtype=np.float32),
    "t": np.array([-1.0, 0.0], dtype=np.float32),
}


def test_popularity_counts_users_once() -> None:
    assert Popularity.fit(HISTORIES).scores(["a"], ["a", "b", "c", "d", "new"]).tolist() == [2, 3, 2, 1, 0]


def test_knn_sums_decayed_cosines_newest_first() -> None:
    knn = ItemKNN.fit(HISTORIES)
    np.testing.assert_allclose(knn.similarity(["a", "b"], ["c", "d"]), [BC + 0.7 * AC, 0])
    np.testing.assert_allclose(knn.similarity(["b", "a"], ["c", "d"]), [AC + 0.7 * BC, 0])
    np.testing.assert_allclose(knn.similarity(["b", "new", "a"], ["c", "b"]), [AC + 0.49 * BC, AB + 0.49])


def test_knn_looks_at_the_last_items_only() -> None:
    knn = ItemKNN.fit(HISTORIES, items_last=1, decay=0.5)
    np.testing.assert_allclose(knn.similarity(["a", "b"], ["c"]), [BC])
    twenty = ItemKNN.fit(HISTORIES)
    assert twenty.similarity(["a"] + ["new"] * 19, ["c"])[0] > 0
    assert twenty.similarity(["a"] + ["new"] * 20, ["c"])[0] == 0


def test_knn_is_silent_on_what_it_does_not_know() -> None:
    knn = ItemKNN.fit(HISTORIES)
    assert knn.scores(["a"], ["new", "newer"]).tolist() == [0, 0]
    assert knn.similarity([], ["a", "b"]).tolist() == [0, 0]
    assert knn.similarity(["new"], ["a", "b"]).tolist() == [0, 0]
    assert knn.scores(["a"], []).shape == (0,)
    assert ItemKNN.fit({}).scores(["a"], ["b"]).tolist() == [0]


def test_knn_breaks_ties_by_popularity_and_only_ties() -> None:
    knn = ItemKNN.fit(HISTORIES)
    scores = knn.scores(["d"], ["a", "b", "new"])
    assert scores[1] > scores[0] > scores[2] == 0
    np.testing.assert_allclose(knn.scores(["a", "b"], ["c"]), [BC + 0.7 * AC + 1e-6 * 2 / 3], rtol=1e-12)


@pytest.mark.parametrize("wrong", [{"items_last": 0}, {"decay": 0.0}, {"decay": 1.5}])
def test_knn_refuses_parameters_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="item-kNN"):
        ItemKNN.fit(HISTORIES, **wrong)  # type: ignore[arg-type]


items = st.sampled_from("abcdefgh")


@given(st.lists(st.lists(items, max_size=6), max_size=6), st.lists(items, max_size=25), st.lists(items, max_size=8))
def test_knn_agrees_with_the_dense_definition(
    sequences: list[list[str]], history: list[str], candidates: list[str]
) -> None:
    owners = {item: {u for u, sequence in enumerate(sequences) if item in sequence} for item in "abcdefgh"}

    def cosine(i: str, j: str) -> float:
        return len(owners[i] & owners[j]) / sqrt(len(owners[i]) * len(owners[j])) if owners[i] and owners[j] else 0.0

    expected = [sum(0.7**age * cosine(h, c) for age, h in enumerate(history[::-1][:20])) for c in candidates]
    knn = ItemKNN.fit({str(user): sequence for user, sequence in enumerate(sequences)})
    np.testing.assert_allclose(knn.similarity(history, candidates), expected, atol=1e-12)


def test_content_is_the_mean_of_the_three_nearest() -> None:
    content = ContentSimilarity(VECTORS)
    np.testing.assert_allclose(content.scores(["t", "s", "r", "q"], ["p"]), [(0.8 + 0.6 + 0.0) / 3], atol=1e-6)
    np.testing.assert_allclose(content.scores(["q", "t"], ["p"]), [(0.8 - 1.0) / 2], atol=1e-6)
    np.testing.assert_allclose(content.scores(["r"], ["s", "p", "t"]), [0.8, 0.6, -0.6], atol=1e-6)


def test_content_looks_at_the_last_items_and_skips_unknown_ones() -> None:
    np.testing.assert_allclose(ContentSimilarity(VECTORS, items_last=1).scores(["p", "s"], ["p"]), [0], atol=1e-6)
    content = ContentSimilarity(VECTORS)
    np.testing.assert_allclose(content.scores(["new", "q"], ["newer", "p"]), [0, 0.8], atol=1e-6)
    assert content.scores([], ["p"]).tolist() == [0]
    assert ContentSimilarity({}).scores(["p"], ["p", "q"]).tolist() == [0, 0]
    with pytest.raises(InputError, match="content similarity"):
        ContentSimilarity(VECTORS, nearest=0)


def test_z_scores() -> None:
    np.testing.assert_allclose(z(np.array([1.0, 2.0, 3.0])), [-sqrt(1.5), 0, sqrt(1.5)])
    assert z(np.array([0.3] * 7)).tolist() == [0] * 7
    assert z(np.array([0.1 + 0.2, 0.3])).tolist() == [0, 0]
    assert z(np.array([0.0])).tolist() == [0]
    assert z(np.array([])).tolist() == []
    assert z(np.zeros((0, 3))).shape == (0, 3)
    with np.errstate(all="raise"):
        table = z(np.array([[1.0, np.nan, 5.0], [3.0, np.nan, 5.0], [np.nan, np.nan, np.nan]]))
    np.testing.assert_array_equal(table, [[-1, np.nan, 0], [1, np.nan, 0], [np.nan] * 3])


def test_standard_scores_are_scipy_s() -> None:
    values = np.random.default_rng(0).normal(size=(30, 4))
    values[::7, 2] = np.nan
    np.testing.assert_allclose(z(values), stats.zscore(values, nan_policy="omit"), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(z(values[:, 0]), stats.zscore(values[:, 0]))


def test_prior_is_the_weighted_sum_of_standard_scores() -> None:
    # Candidates c and d after a: cosines 0 and 1, users 2 and 1; only c is within reach of a. Of two values the larger
    # has z = 1. Both have content neighbours, but those of d (a and c) score more than those of c.
    vectors = {"a": VECTORS["p"], "c": VECTORS["s"], "d": VECTORS["p"]}
    prior = Prior.fit(HISTORIES, ContentSimilarity(vectors))
    (parts,) = prior.parts_of([case(["a"], ["c", "d"])])
    assert set(parts) == {"walk", "via", "content", "popularity"}
    assert parts["content"].round(6).tolist() == [0, 1]
    assert parts["popularity"].tolist() == [2, 1]
    assert parts["walk"][0] > parts["walk"][1] == 0
    assert parts["via"][1] > parts["via"][0] == 0  # no item resembles c
    np.testing.assert_allclose(prior.scores(["a"], ["c", "d"]), [-1 - 1 + 1 + 0.5, 1 + 1 - 1 - 0.5], atol=1e-6)


def test_prior_roots_walk_and_via_and_logs_the_counts() -> None:
    prior = Prior.fit(HISTORIES, ContentSimilarity(VECTORS))
    parts = {
        "content": np.array([0.1, 0.5, 0.3]),
        "via": np.array([0.04, 0.09, 0.0]),
        "walk": np.array([4.0, 1.0, 9.0]),
        "popularity": np.array([1.0, 2.0, 3.0]),
    }
    expected = z(parts["content"]) + z(np.sqrt(parts["via"])) + z(np.array([2, 1, 3])) + 0.5 * z(np.log([2, 3, 4]))
    np.testing.assert_allclose(prior.combine(parts), expected)


def test_via_stands_for_the_walk_where_nobody_has_the_item() -> None:
    prior = Prior.fit(HISTORIES, ContentSimilarity(VECTORS))
    parts = {
        "content": np.array([0.1, 0.5, 0.3]),
        "via": np.array([0.04, 0.09, 0.0]),
        "walk": np.array([4.0, 0.0, 9.0]),
        "popularity": np.array([1.0, 0.0, 3.0]),
    }
    via = z(np.sqrt(parts["via"]))
    expected = z(parts["content"]) + via + [-1, via[1], 1] + 0.5 * np.array([-1, 0, 1])
    np.testing.assert_allclose(prior.combine(parts), expected)


def test_via_reaches_what_nobody_has_through_the_texts_of_its_neighbours() -> None:
    # p and q resemble a, and nobody has them; t is the contrary of a.
    vectors = {"a": VECTORS["p"], **VECTORS}
    (parts,) = Prior.fit(HISTORIES, ContentSimilarity(vectors)).parts_of([case(["b"], ["p", "q", "t"])])
    assert parts["walk"].tolist() == [0, 0, 0]
    assert parts["via"][0] > parts["via"][1] > parts["via"][2] == 0


def test_an_unknown_item_of_the_history_speaks_for_items_like_it() -> None:
    (parts,) = Prior.fit(HISTORIES, ContentSimilarity(VECTORS)).parts_of([case(["q", "s"], ["p", "r"])])
    cubes = np.array([[0.8, 0.6, 0, 0], [0.96, 0.6, 0.8, 0]]) ** 3  # of p to q, r, s, t; of r to q, p, s, t
    own = np.array([[0.7, 0, 1, 0], [0.7, 0, 1, 0]])
    np.testing.assert_allclose(parts["via"], (cubes * own).sum(axis=1) / cubes.sum(axis=1), rtol=1e-5)


def test_sales_take_the_place_of_popularity_where_the_history_has_dates() -> None:
    training = {
        "u": (bought("a", 100), bought("b", 400)),
        "v": (bought("a", 200), bought("c", 390)),
        "w": (bought("b", 300), bought("a", 50)),
    }
    prior = Prior.fit(histories_of(training), sales=PastSales.fit(training, days=150))
    dated = Case(user_id="x", history=(bought("d", 350),), candidates=("a", "b", "c"))
    (parts,) = prior.parts_of([dated])
    assert parts["sales"].tolist() == [0, 1, 0]  # a: 100 days too early; b: one of two; c: later than the history
    assert parts["popularity"].tolist() == [3, 2, 1]
    assert prior.combine(parts).argmax() == 1
    (undated,) = prior.parts_of([case(["d"], ["a", "b", "c"])])
    assert "sales" not in undated


def bought(item: str, day: int) -> Interaction:
    """A purchase on a day."""
    return Interaction(item_id=item, timestamp=day * SECONDS_PER_DAY)


def test_past_sales_end_with_the_moment_and_begin_after_the_window() -> None:
    sales = PastSales.fit({"u": (bought("a", 0), bought("a", 10), bought("a", 20), Interaction(item_id="a"))}, days=10)
    assert [sales.at(day * SECONDS_PER_DAY, ["a"])[0] for day in (-1, 0, 9, 10, 19, 20, 29, 30)] == [
        *(0, 1, 1, 1, 1, 1, 1, 0)
    ]
    assert sales.at(0, ["new"]).tolist() == [0]
    with pytest.raises(InputError, match="days=0"):
        PastSales.fit({}, days=0)


@given(st.lists(st.lists(items, max_size=6), max_size=6), st.lists(items, max_size=25))
def test_random_walk_agrees_with_the_dense_definition(sequences: list[list[str]], history: list[str]) -> None:
    histories = {str(user): sequence for user, sequence in enumerate(sequences)}
    walk = RandomWalk(histories, "abcdefgh")
    own = np.array([[item in sequence for item in walk.columns] for sequence in sequences], dtype=float)
    own = own.reshape(len(sequences), len(walk.columns))
    with np.errstate(divide="ignore"):
        by_item = np.where(own.sum(axis=0) > 0, own.sum(axis=0) ** -0.5, 0)
        by_user = np.where(own.sum(axis=1) > 0, 1 / own.sum(axis=1), 0)
    step = np.diag(by_item) @ own.T @ np.diag(by_user) @ own @ np.diag(by_item)
    start = np.zeros(len(walk.columns))
    for age, item in enumerate(history[::-1][:20]):
        start[walk.columns[item]] += 0.7**age
    expected = start @ step @ step + np.where(own.sum(axis=0) > 0, 0, start)
    np.testing.assert_allclose(walk.scores([["a"], history])[1], expected, atol=1e-12)


@pytest.mark.parametrize("wrong", [{"items_last": 0}, {"decay": 0.0}, {"decay": 1.5}])
def test_random_walk_refuses_parameters_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError, match="random walk"):
        RandomWalk(HISTORIES, **wrong)  # type: ignore[arg-type]


def test_content_neighbours_are_the_nearest_others() -> None:
    found = ContentSimilarity(VECTORS).neighbours_of(["p", "t", "new"])
    weights = {
        item: dict(zip(own.rows.tolist(), own.weights.round(6).tolist(), strict=True)) for item, own in found.items()
    }
    assert weights["p"] == {1: 0.512, 2: 0.216, 3: 0, 4: 0}  # q and r; s is at a right angle, t points away
    assert set(weights) == {"p", "t"}
    many = {
        f"v{n}": vector for n, vector in enumerate(np.random.default_rng(0).normal(size=(80, 4)).astype(np.float32))
    }
    content = ContentSimilarity(many)
    cosines = content.matrix[7] @ content.matrix.T
    cosines[7] = -np.inf
    assert set(content.neighbours_of(["v7"])["v7"].rows) == set(np.argsort(-cosines)[:50])
    assert ContentSimilarity({"p": VECTORS["p"]}).neighbours_of(["p"])["p"].rows.shape == (0,)


def test_many_cases_at_once_are_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(0)
    names = [f"i{n}" for n in range(150)]
    histories = {f"u{n}": list(rng.choice(names[:120], rng.integers(1, 9), replace=False)) for n in range(80)}
    vectors = rng.normal(size=(150, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    content = ContentSimilarity(dict(zip(names, vectors, strict=True)))
    cases = [case(own, list(rng.choice(names, 20, replace=False)), user) for user, own in histories.items()]
    at_once = ScoreRanker("prior", Prior.fit(histories, content)).rank_many(cases)
    one_by_one = ScoreRanker("prior", Prior.fit(histories, content))
    assert [one_by_one.rank(one) for one in reversed(cases)] == at_once[::-1]


def test_prior_ranker_records_its_parts() -> None:
    ranker = ScoreRanker("prior", Prior.fit(HISTORIES, ContentSimilarity(VECTORS)))
    assert isinstance(ranker, Ranker)
    assert isinstance(ranker, BatchRanker)
    ranking = ranker.rank(case(["a"], ["d", "c", "b"], "u"))
    assert set(ranking.scores) == {"prior", "walk", "via", "content", "popularity"}
    assert ranking.order == ("b", "c", "d")
    assert ranking.scores["popularity"] == [1, 2, 3]
    assert ranking.user_id == "u"


def test_plain_scorer_ranker_is_named_like_its_component() -> None:
    ranking = ScoreRanker("popularity", Popularity.fit(HISTORIES)).rank(case(["a"], ["d", "b", "new"]))
    assert ranking.scores == {"popularity": [1, 3, 0]}
    assert ranking.order == ("b", "d", "new")


@given(st.lists(items, max_size=10), st.lists(items, min_size=1, max_size=8, unique=True))
def test_ranking_is_a_permutation_whatever_is_unknown(history: list[str], candidates: list[str]) -> None:
    ranking = ScoreRanker("prior", Prior.fit(HISTORIES, ContentSimilarity(VECTORS))).rank(case(history, candidates))
    assert sorted(ranking.order) == sorted(candidates)
    assert all(np.isfinite(ranking.scores["prior"]))
