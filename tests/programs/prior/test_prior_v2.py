"""Version 2 of the prior against tables worked out by hand."""

from __future__ import annotations

from math import log

import numpy as np

from programs.prior.prior_v2 import PriorV2
from programs.prior.scorers import ContentSimilarity
from programs.prior.standard_scores import z
from tests.programs.prior.test_prior import AB, AC, HISTORIES, VECTORS
from tests.support.cases import case


def test_prior_is_the_weighted_sum_of_standard_scores() -> None:
    # Candidates c and d after a: kNN 1/2 and 0, cosines 0 and 1, users 2 and 1. Of two values the larger has z = 1.
    vectors = {"a": VECTORS["p"], "c": VECTORS["s"], "d": VECTORS["p"]}
    prior = PriorV2.fit(HISTORIES, ContentSimilarity(vectors))
    np.testing.assert_allclose(prior.scores(["a"], ["c", "d"]), [1 - 1 + 0.5, -1 + 1 - 0.5], atol=1e-6)
    parts = prior.parts_of([case(["a"], ["c", "d"])])[0]
    assert {name: np.round(part, 6).tolist() for name, part in parts.items()} == {
        "knn": [0.5, 0],
        "content": [0, 1],
        "popularity": [2, 1],
    }


def test_prior_roots_the_cosines_and_logs_the_counts() -> None:
    prior = PriorV2.fit(HISTORIES, ContentSimilarity({}))
    expected = z(np.sqrt([AB, AC, 0])) + 0.5 * z(np.log([4, 3, 2]))
    np.testing.assert_allclose(prior.scores(["a"], ["b", "c", "d"]), expected)
    assert log(4) == np.log1p(3)


def test_prior_rests_on_content_where_nobody_has_the_candidates() -> None:
    prior = PriorV2.fit(HISTORIES, ContentSimilarity(VECTORS))
    np.testing.assert_allclose(prior.scores(["q"], ["p", "t"]), [1, -1], atol=1e-6)
    assert prior.scores(["b"], ["p", "t"]).tolist() == [0, 0]


def test_prior_does_not_hold_it_against_a_candidate_that_nobody_has_it() -> None:
    # b and d by kNN after a: AB and 0, users 3 and 1; p, which nobody has, lies between them.
    prior = PriorV2.fit(HISTORIES, ContentSimilarity({}))
    np.testing.assert_allclose(prior.scores(["a"], ["b", "p", "d"]), [1.5, 0, -1.5])
    # By content it resembles the history as much as can be, and the others are unknown to it.
    prior = PriorV2.fit(HISTORIES, ContentSimilarity({"a": VECTORS["p"], "p": VECTORS["p"]}))
    content = z(np.array([0, 1, 0]))
    np.testing.assert_allclose(prior.scores(["a"], ["b", "p", "d"]), np.array([1.5, 0, -1.5]) + content, atol=1e-6)
