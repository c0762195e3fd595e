"""Warm, item-cold and user-cold: who is evaluated on what, by hand; and what must not be learnt."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.data.dataset import Dataset
from evaluate.protocol.cases import draw_cases, draw_lists, load_cases, write_cases
from evaluate.protocol.leakage import find_leaks, refuse_leaks
from evaluate.protocol.negatives import NegativeSampler
from evaluate.protocol.protocol import Setting
from evaluate.protocol.splits import split_dataset
from evaluate.runs.full_ranking import full_ranking_ranks
from programs.prior.score_ranker import ScoreRanker
from programs.prior.scorers import Popularity
from programs.runtime.errors import InputError
from signatures.rows import Case
from signatures.types import Interaction
from tests.support.datasets import Event, make_dataset, protocol_for


@pytest.fixture
def shop() -> Dataset:
    """Ten items: `rare` has one interaction, all others at least two."""
    return make_dataset(
        {
            "ann": [("a", 5, 1), ("b", 5, 2), ("rare", 5, 9)],
            "bob": [("a", 5, 1), ("c", 5, 3), ("d", 5, 4)],
            "cid": [("b", 5, 1), ("c", 5, 2), ("e", 5, 10), ("d", 5, 10)],
            "dot": [("e", 5, 1), ("f", 5, 2), ("g", 5, 3)],
            "eve": [("f", 5, 1), ("g", 5, 2), ("h", 5, 3), ("i", 5, 5)],
            "fay": [("h", 5, 1), ("i", 5, 2), ("a", 5, 8)],
        }
    )


def test_item_cold_start_evaluates_those_whose_target_is_rare_and_learns_from_the_others(shop: Dataset) -> None:
    found = split_dataset(shop, protocol_for(shop, setting="item-cold"))
    assert found.cold_items == {"rare"}
    assert {user: (tuple(e.item_id for e in one.history), one.target) for user, one in found.held_out.items()} == {
        "ann": (("a", "b"), "rare")
    }
    assert "ann" not in found.training
    assert found.histories["bob"] == ("a", "c", "d")  # whole: bob is never evaluated here
    assert len(found.training) == 5


def test_item_cold_start_may_take_any_cold_item_of_a_user() -> None:
    rows: dict[str, list[Event]] = {f"u{n}": [("a", 5, 1), ("b", 5, 2), ("c", 5, 3)] for n in range(5)}
    rows["ann"] = [("a", 5, 1), ("rare", 5, 2), ("b", 5, 3)]
    rows["bob"] = [("a", 5, 1), ("b", 5, 2), ("rare", 1, 3), ("c", 5, 4)]
    dataset = make_dataset(rows)
    by_target = protocol_for(dataset, setting="item-cold", cold_share=0.25)
    assert split_dataset(dataset, by_target).held_out == {}
    liked = split_dataset(dataset, by_target.model_copy(update={"cold_positive": "any"}))
    assert {user: one.target for user, one in liked.held_out.items()} == {"ann": "rare"}
    anything = by_target.model_copy(update={"cold_positive": "any", "target": "last"})
    assert set(split_dataset(dataset, anything).held_out) == {"ann", "bob"}
    assert not set(split_dataset(dataset, anything).training) & {"ann", "bob"}


@pytest.mark.parametrize(
    ("field", "value", "setting"),
    [("cold_positive", "any", "warm"), ("cold_positive", "any", "user-cold"), ("cold_history", "recent", "item-cold")],
)
def test_a_rule_of_another_setting_is_refused_in_new_cases(shop: Dataset, field: str, value: str, setting: str) -> None:
    choices: dict[str, Any] = {"setting": setting, field: value, "part": "all", "negatives": 2}
    with pytest.raises(InputError, match=f"{field}: is a rule of the setting .*'{setting}' does not read it; choose"):
        draw_cases(shop, **choices)


def test_any_cold_item_by_the_highest_rating_is_refused_in_new_cases_and_read_in_old_files(
    shop: Dataset, tmp_path: Path
) -> None:
    choices: dict[str, Any] = {
        "setting": "item-cold",
        "cold_positive": "any",
        "target": "highest",
        "part": "all",
        "negatives": 2,
    }
    with pytest.raises(InputError, match="no target 'highest'; give the target 'last-liked' or 'last'"):
        draw_cases(shop, **choices)
    protocol = protocol_for(shop, **choices)
    write_cases(tmp_path / "old.jsonl", protocol, draw_lists(shop, protocol))
    assert load_cases(tmp_path / "old.jsonl", shop).leaks == []


def test_user_cold_start_knows_the_window_only_and_learns_from_the_time_before(shop: Dataset) -> None:
    # 20 records, the latest 20% are four: times 10, 10, 9, 8.
    found = split_dataset(shop, protocol_for(shop, setting="user-cold", cold_share=0.2))
    assert {u: (tuple(e.item_id for e in one.history), one.target) for u, one in found.held_out.items()} == {
        "cid": (("e",), "d")  # b and c lie before the window; ann and fay have one record in it, and so no history
    }
    assert found.histories == {
        "bob": ("a", "c", "d"),
        "dot": ("e", "f", "g"),
        "eve": ("f", "g", "h", "i"),
    }


def test_user_cold_start_may_know_the_records_just_before(shop: Dataset) -> None:
    protocol = protocol_for(shop, setting="user-cold", cold_share=0.2, cold_history="recent")
    found = split_dataset(shop, protocol)
    assert {u: (tuple(e.item_id for e in one.history), one.target) for u, one in found.held_out.items()} == {
        "ann": (("a", "b"), "rare"),
        "cid": (("c", "e"), "d"),
        "fay": (("h", "i"), "a"),
    }
    assert not set(found.training) & set(found.held_out)


def test_records_of_the_windows_first_moment_all_belong_to_it() -> None:
    rows: dict[str, list[Event]] = {f"u{n}": [("a", 5, 1), ("b", 5, 7)] for n in range(10)}
    dataset = make_dataset(rows)
    found = split_dataset(dataset, protocol_for(dataset, setting="user-cold", cold_share=0.1, cold_history="recent"))
    assert len(found.held_out) == 10


def test_user_cold_start_needs_times() -> None:
    dataset = make_dataset({"ann": [("a", 5, 1), ("b", 5, None)]})
    with pytest.raises(InputError, match="1 interactions have no timestamp"):
        split_dataset(dataset, protocol_for(dataset, setting="user-cold"))


def test_cut_histories_keep_targets_lists_and_training(shop: Dataset) -> None:
    whole, cut = (draw_lists(shop, protocol_for(shop, last=last)) for last in (None, 1))
    assert [case.candidates for case in whole] == [case.candidates for case in cut]
    assert all(len(case.history) == 1 and case.history[0] == full.history[-1] for case, full in zip(cut, whole))  # noqa: B905
    assert split_dataset(shop, protocol_for(shop, last=1)).training == split_dataset(shop, protocol_for(shop)).training


def test_another_draw_has_the_same_users_and_targets_and_other_negatives(shop: Dataset) -> None:
    first, second = (draw_lists(shop, protocol_for(shop, draw=draw)) for draw in (0, 1))
    assert [(c.user_id, c.target, c.history) for c in first] == [(c.user_id, c.target, c.history) for c in second]
    assert [c.candidates for c in first] != [c.candidates for c in second]


# Negatives


def test_matched_negatives_of_a_cold_item_are_cold() -> None:
    sampler = NegativeSampler(["p", "q", "r", "s", "t"], {"p": 9, "q": 8, "r": 7}, "matched", 1)
    drawn = {sampler.draw(np.random.default_rng(seed), "s", {"s"})[0] for seed in range(30)}
    # One negative is drawn among four times as many candidates, the nearest first: everything, in a pool of five.
    assert drawn == {"p", "q", "r", "t"}
    many = [f"cold{n}" for n in range(20)] + ["hot"]
    sampler = NegativeSampler(many, {"hot": 50}, "matched", 3)
    shown = {item for seed in range(50) for item in sampler.draw(np.random.default_rng(seed), "cold0", {"cold0"})}
    assert shown == set(many) - {"cold0", "hot"}


@pytest.mark.parametrize(("count", "expected"), [(50, range(38, 63)), (1, range(1, 14)), (100, range(88, 101))])
def test_matched_negatives_are_neighbours_of_the_positive_by_popularity(count: int, expected: range) -> None:
    counts = {f"i{n:03}": n for n in range(1, 101)}
    target = f"i{count:03}"
    sampler = NegativeSampler(sorted(counts), counts, "matched", 3)
    drawn = {item for seed in range(400) for item in sampler.draw(np.random.default_rng(seed), target, {target})}
    assert drawn == {f"i{n:03}" for n in expected} - {target}


def test_popularity_is_chance_among_matched_negatives() -> None:
    counts = {f"i{n:03}": n for n in range(1, 201)}
    sampler = NegativeSampler(sorted(counts), counts, "matched", 9)
    places = Counter(
        sum(counts[item] > 100 for item in sampler.draw(np.random.default_rng(seed), "i100", {"i100"}))
        for seed in range(3000)
    )
    assert set(places) == set(range(10))
    # 300 of each, standard deviation 16.
    assert all(220 < number < 380 for number in places.values())


def test_negatives_by_popularity_follow_the_number_of_users() -> None:
    sampler = NegativeSampler(["a", "b", "c", "none"], {"a": 60, "b": 30, "c": 10}, "popularity", 1)
    drawn = Counter(sampler.draw(np.random.default_rng(seed), "x", {"x"})[0] for seed in range(2000))
    assert drawn["none"] == 0
    # Standard deviation of the most frequent: 22.
    assert abs(drawn["a"] - 1200) < 110
    assert abs(drawn["b"] - 600) < 100


@settings(max_examples=40)
@given(
    st.sampled_from(["uniform", "popularity", "matched"]),
    st.integers(0, 2**32),
    st.sets(st.integers(0, 29), max_size=8),
    st.integers(1, 12),
)
def test_negatives_are_distinct_and_never_the_users_own(sampling: str, seed: int, own: set[int], n: int) -> None:
    pool = [f"i{i:02}" for i in range(30)]
    counts = {item: 1 + 3 * i for i, item in enumerate(pool)}
    mine = {f"i{i:02}" for i in own} | {"i00"}
    drawn = NegativeSampler(pool, counts, sampling, n).draw(np.random.default_rng(seed), "i00", mine)  # type: ignore[arg-type]
    assert len(drawn) == len(set(drawn)) == n
    assert not mine & set(drawn)


# Leaks


@pytest.mark.parametrize("setting", ["warm", "item-cold", "user-cold"])
def test_what_is_drawn_does_not_leak(shop: Dataset, setting: str) -> None:
    protocol = protocol_for(shop, setting=setting, cold_share=0.2)
    assert not find_leaks(draw_lists(shop, protocol), shop, split_dataset(shop, protocol).training, protocol.setting)


def test_a_planted_leak_is_found(shop: Dataset) -> None:
    protocol = protocol_for(shop)
    cases = draw_lists(shop, protocol)
    training = dict(split_dataset(shop, protocol).training)
    training["bob"] = shop.sequences["bob"]  # d is what is to be found
    (leak,) = find_leaks(cases, shop, training)
    assert (leak.user_id, leak.problem) == ("bob", "the training data has 'd', bought at or after the target")
    with pytest.raises(InputError, match="held-out interactions leak: user 'bob'"):
        refuse_leaks([leak])


def test_each_kind_of_leak_is_named(shop: Dataset) -> None:
    ann = next(case for case in draw_lists(shop, protocol_for(shop)) if case.user_id == "ann")
    training = split_dataset(shop, protocol_for(shop)).training
    shown = ann.model_copy(update={"history": (*ann.history, Interaction(item_id="rare"))})
    negative = ann.model_copy(update={"candidates": ("rare", "a", "c")})
    stranger = ann.model_copy(update={"target": "i", "candidates": ("i", "c")})
    asked: list[tuple[Case, Setting, str]] = [
        (shown, "warm", "the history shows 'rare', bought at or after the target"),
        (negative, "warm", "'a' is a negative, but the user bought it"),
        (stranger, "warm", "the target 'i' is not an interaction of the user"),
        (ann, "user-cold", "is in the training data of user-cold"),
    ]
    for case, setting, expected in asked:
        assert expected in [leak.problem for leak in find_leaks([case], shop, training, setting)]
    other = {"ann": shop.sequences["ann"][2:]}
    assert "the cold item 'rare' is in the training data" in [
        leak.problem for leak in find_leaks([ann], shop, other, "item-cold")
    ]


def test_an_item_bought_before_and_after_may_be_learnt_from_its_first_purchase() -> None:
    dataset = make_dataset({"ann": [("a", 5, 1), ("b", 5, 2), ("a", 1, 3)], "bob": [("c", 5, 1), ("d", 5, 2)]})
    protocol = protocol_for(dataset, negatives=1)
    assert not find_leaks(draw_lists(dataset, protocol), dataset, split_dataset(dataset, protocol).training)


# Whole catalogue


def test_the_whole_catalogue_is_ranked_without_what_the_user_has() -> None:
    counts = Popularity({"a": 5, "b": 4, "c": 3, "d": 2, "e": 1})
    case = Case(user_id="u", history=(Interaction(item_id="a"),), candidates=("d", "e"), target="d")
    ranker, items = ScoreRanker("popularity", counts), ["a", "b", "c", "d", "e"]
    # b and c stand above d; a does not, since the user has it.
    assert full_ranking_ranks(ranker, [case], items, {"u": {"a"}}) == {"u": 3}
    # Nor does what the user has, but a shortened history does not show.
    assert full_ranking_ranks(ranker, [case], items, {"u": {"a", "c"}}) == {"u": 2}
