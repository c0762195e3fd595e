"""The prior against tables worked out by hand."""

from __future__ import annotations

from math import log, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from programs.prior.prior import Prior, ScoreRanker, z
from programs.prior.retrieval import retrieve
from programs.prior.scorers import ContentSimilarity, ItemKNN, Popularity
from programs.ranker import Ranker
from programs.runtime.errors import InputError
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
    # Candidates c and d after a: kNN 1/2 and 0, cosines 0 and 1, users 2 and 1. Of two values the larger has z = 1.
    vectors = {"a": VECTORS["p"], "c": VECTORS["s"], "d": VECTORS["p"]}
    prior = Prior.fit(HISTORIES, ContentSimilarity(vectors))
    np.testing.assert_allclose(prior.scores(["a"], ["c", "d"]), [1 - 1 + 0.5, -1 + 1 - 0.5], atol=1e-6)
    parts = prior.parts(["a"], ["c", "d"])
    assert {name: np.round(part, 6).tolist() for name, part in parts.items()} == {
        "knn": [0.5, 0],
        "content": [0, 1],
        "popularity": [2, 1],
    }


def test_prior_roots_the_cosines_and_logs_the_counts() -> None:
    prior = Prior.fit(HISTORIES, ContentSimilarity({}))
    expected = z(np.sqrt([AB, AC, 0])) + 0.5 * z(np.log([4, 3, 2]))
    np.testing.assert_allclose(prior.scores(["a"], ["b", "c", "d"]), expected)
    assert log(4) == np.log1p(3)


def test_prior_rests_on_content_where_nobody_has_the_candidates() -> None:
    prior = Prior.fit(HISTORIES, ContentSimilarity(VECTORS))
    np.testing.assert_allclose(prior.scores(["q"], ["p", "t"]), [1, -1], atol=1e-6)
    assert prior.scores(["b"], ["p", "t"]).tolist() == [0, 0]


def test_prior_does_not_hold_it_against_a_candidate_that_nobody_has_it() -> None:
    # b and d by kNN after a: AB and 0, users 3 and 1; p, which nobody has, lies between them.
    prior = Prior.fit(HISTORIES, ContentSimilarity({}))
    np.testing.assert_allclose(prior.scores(["a"], ["b", "p", "d"]), [1.5, 0, -1.5])
    # By content it resembles the history as much as can be, and the others are unknown to it.
    prior = Prior.fit(HISTORIES, ContentSimilarity({"a": VECTORS["p"], "p": VECTORS["p"]}))
    content = z(np.array([0, 1, 0]))
    np.testing.assert_allclose(prior.scores(["a"], ["b", "p", "d"]), np.array([1.5, 0, -1.5]) + content, atol=1e-6)


def test_prior_ranker_records_its_parts() -> None:
    ranker = ScoreRanker("prior", Prior.fit(HISTORIES, ContentSimilarity(VECTORS)))
    assert isinstance(ranker, Ranker)
    ranking = ranker.rank(case(["a"], ["d", "c", "b"], "u"))
    assert set(ranking.scores) == {"prior", "knn", "content", "popularity"}
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


def test_retrieve_takes_the_best_unseen_items() -> None:
    knn = ItemKNN.fit(HISTORIES)
    catalogue = ["d", "c", "b", "a"]
    assert retrieve(knn, ["a"], catalogue, k=2) == ("b", "c")
    assert retrieve(knn, ["a"], catalogue, k=2, exclude_seen=False) == ("a", "b")
    assert retrieve(knn, ["a"], catalogue, k=99) == ("b", "c", "d")
    assert retrieve(knn, catalogue, catalogue, k=1) == ()
    with pytest.raises(InputError, match="at least 1"):
        retrieve(knn, ["a"], catalogue, k=0)


def test_retrieve_breaks_ties_the_same_way_every_time_but_not_by_input_order() -> None:
    nothing = Popularity({})
    catalogue = [str(i) for i in range(50)]
    first = retrieve(nothing, ["h"], catalogue, k=10)
    assert first == retrieve(nothing, ["h"], catalogue, k=10)
    assert first != tuple(catalogue[:10])
    assert first != retrieve(nothing, ["other"], catalogue, k=10)
