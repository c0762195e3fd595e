"""Candidates from a whole catalogue: many users at once against one at a time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs.prior import catalogue_scores
from programs.prior.catalogue_scores import CatalogueScores
from programs.prior.past_sales import SECONDS_PER_DAY, PastSales
from programs.prior.prior import Prior
from programs.prior.retrieval import retrieve, retriever_of
from programs.prior.scorers import ContentSimilarity, ItemKNN, Popularity, scores_of
from programs.runtime.errors import InputError
from signatures.rows import Case
from signatures.types import Interaction
from tests.support.invented import invented_prior

IDS = [f"i{n}" for n in range(30)]
some_histories = st.lists(st.lists(st.sampled_from([*IDS, "unlisted"]), max_size=25), max_size=6)


def test_the_best_unseen_items_come_first() -> None:
    knn = ItemKNN.fit({"u": ["a", "b"], "v": ["a", "b", "c"], "w": ["b", "c", "b"], "x": ["d"]})
    catalogue = ["d", "c", "b", "a"]
    assert retrieve(knn, ["a"], catalogue, k=2) == ("b", "c")
    assert retrieve(knn, ["a"], catalogue, k=99) == ("b", "c", "d")
    assert retrieve(knn, catalogue, catalogue, k=1) == ()
    with pytest.raises(InputError, match="at least 1"):
        retrieve(knn, ["a"], catalogue, k=0)


def test_ties_are_broken_the_same_way_every_time_but_not_by_input_order() -> None:
    nothing = Popularity({})
    catalogue = [str(i) for i in range(50)]
    first = retrieve(nothing, ["h"], catalogue, k=10)
    assert first == retrieve(nothing, ["h"], catalogue, k=10)
    assert first != tuple(catalogue[:10])
    assert first != retrieve(nothing, ["other"], catalogue, k=10)


@settings(max_examples=60, deadline=None)
@given(some_histories, st.integers(0, 10**6), st.integers(1, 40), st.integers(1, 200))
def test_many_users_at_once_get_what_each_gets_alone(histories: list[list[str]], seed: int, k: int, cells: int) -> None:
    prior = invented_prior(IDS[:25], users=12, seed=seed)  # five items have no vector and no user
    together = _with_batches_of(cells, prior, histories, k)
    assert together == [retrieve(prior, history, IDS, k) for history in histories]
    for history, found in zip(histories, together, strict=True):
        _assert_best(prior, history, found, k)


def _with_batches_of(cells: int, prior: Prior, histories: list[list[str]], k: int) -> list[tuple[str, ...]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue_scores, "BATCH_CELLS", cells)
        return list(retriever_of(prior, IDS).first(histories, k))


def _assert_best(prior: Prior, history: Sequence[str], found: Sequence[str], k: int) -> None:
    """The items found have the k highest of the scores of `Prior.scores`, best first."""
    eligible = [item for item in IDS if item not in history]
    scores = dict(zip(eligible, prior.scores(history, eligible).tolist(), strict=True))
    assert set(found) <= set(eligible) and len(set(found)) == len(found) == min(k, len(eligible))
    np.testing.assert_allclose(
        [scores[item] for item in found], sorted(scores.values(), reverse=True)[:k], rtol=0, atol=1e-5
    )


def test_a_prior_without_texts_or_users_ranks_too() -> None:
    only_users = Prior.fit({"u": ["i0", "i1"], "v": ["i1", "i2"]})
    assert retrieve(only_users, ["i0"], IDS, 1) == ("i1",)
    nobody = Prior.fit({}, ContentSimilarity({"i0": np.array([1.0, 0.0]), "i1": np.array([0.6, 0.8])}))
    assert retrieve(nobody, ["i0"], IDS, 1) == ("i1",)


def test_sales_are_counted_up_to_the_newest_date_of_each_user() -> None:
    rng = np.random.default_rng(0)
    sold = {item: np.sort(rng.integers(0, 900, size=rng.integers(1, 30))) * SECONDS_PER_DAY for item in IDS[:25]}
    plain = invented_prior(IDS[:25], users=12, seed=3)
    prior = Prior(plain.walk, plain.content, plain.popularity, PastSales(sold, days=365))
    histories = [["i1", "i2"], ["i3"], ["i1", "i2"], ["i4"]]
    moments = [400 * SECONDS_PER_DAY, None, 800 * SECONDS_PER_DAY, 10 * SECONDS_PER_DAY]
    found = list(retriever_of(prior, IDS).first(histories, 40, moments))
    assert found[0] != found[2], "one history, at two dates"
    for history, moment, items in zip(histories, moments, found, strict=True):
        events = tuple(Interaction(item_id=item, timestamp=moment) for item in history)
        candidates = tuple(item for item in IDS if item not in history)
        scores = dict(
            zip(candidates, scores_of(prior, Case(user_id="u", history=events, candidates=candidates)), strict=True)
        )
        np.testing.assert_allclose([scores[item] for item in items], sorted(scores.values(), reverse=True), atol=1e-5)


def test_users_are_read_as_they_are_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_scores, "BATCH_CELLS", 1)
    read = []
    prior = invented_prior(IDS, users=5, seed=0)
    found = CatalogueScores(prior, IDS).first((read.append(item) or [item] for item in IDS), 3)  # type: ignore[func-returns-value]
    next(found)
    assert read == ["i0"]
