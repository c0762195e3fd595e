"""The demo store is what it claims to be, and recovery counts as worked out by hand."""

from __future__ import annotations

import random
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable
from fractions import Fraction
from importlib import resources
from itertools import combinations, pairwise
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.data.dataset import INTERACTION_COLUMNS
from evaluate.data.demo.store import demo_dataset, demo_items, planted_motivations
from evaluate.data.demo.users import AGE_LEANINGS, REGION_LEANINGS, simulate
from evaluate.runs.planted_recovery import recovery
from programs.runtime.errors import InputError
from signatures.schema import CONSUMER, Dimension, MotivationSchema
from signatures.types import Item, Motivation, Profile

STORE = demo_dataset()
TRUTH = planted_motivations()
PRODUCTS = demo_items()
SERVES = {p.item.item_id: p.serves for p in PRODUCTS}
DEPARTMENT = {p.item.item_id: p.department for p in PRODUCTS}


def fits(user_id: str, item_id: str) -> bool:
    return not set(TRUTH[user_id]).isdisjoint(SERVES[item_id])


# The catalogue


def test_ids_and_titles_are_unique() -> None:
    text = resources.files("evaluate.data.demo").joinpath("products.toml").read_text(encoding="utf-8")
    entries = tomllib.loads(text)["product"]
    assert [e["id"] for e in entries] == [f"D{n:03d}" for n in range(1, len(entries) + 1)]
    assert len({e["title"] for e in entries}) == len(entries) == len(STORE.items)
    assert 100 <= len(entries) <= 110


def test_items_are_complete() -> None:
    for item in STORE.items.values():
        assert item.title and item.description and item.brand and item.price and item.price > 0
        assert len(item.categories) == 1 and 2 <= len(item.categories[0]) <= 3


def test_every_dimension_is_served_widely() -> None:
    served: dict[str, list[str]] = defaultdict(list)
    for item_id, dimensions in SERVES.items():
        assert 1 <= len(dimensions) <= 3 and len(set(dimensions)) == len(dimensions)
        for dimension in dimensions:
            served[dimension].append(DEPARTMENT[item_id])
    assert set(served) == set(CONSUMER.names)
    assert min(len(departments) for departments in served.values()) >= 8
    assert min(len(set(departments)) for departments in served.values()) >= 3


def test_texts_do_not_name_the_dimensions() -> None:
    tell = "|".join(CONSUMER.names) + "|durab|sustain|functional|aesthetic|convenien|enjoy|well-being|learn|valu"
    named = [i.item_id for i in STORE.items.values() if re.search(tell, i.text, re.IGNORECASE)]
    assert named == []


def test_the_truth_is_not_in_the_dataset() -> None:
    assert "serves" not in Item.model_fields
    assert {key for z in STORE.metadata.values() for key in z} == {"age", "gender", "region"}


# The shoppers


def test_dataset_keeps_its_contract() -> None:
    frame = STORE.interactions
    assert (STORE.name, STORE.format, tuple(frame.columns)) == ("demo", "demo", INTERACTION_COLUMNS)
    assert str(frame["timestamp"].dtype) == "Int64"
    assert frame.equals(frame.sort_values(["user_id", "position"], ignore_index=True))
    assert set(frame["item_id"]) <= set(STORE.items)
    assert set(frame["user_id"]) == set(TRUTH) == set(STORE.metadata)
    assert demo_dataset().sha256 == STORE.sha256


@given(seed=st.integers(0, 10**6), n=st.integers(0, 6))
@settings(max_examples=25, deadline=None)
def test_every_shopper_is_well_formed(seed: int, n: int) -> None:
    shoppers = simulate(PRODUCTS, n, seed)
    assert shoppers == simulate(PRODUCTS, n + 1, seed)[:n]
    for shopper in shoppers:
        items = [p.item_id for p in shopper.purchases]
        times = [p.timestamp or 0 for p in shopper.purchases]
        assert 2 <= len(items) == len(set(items)) <= 7
        assert all(a < b for a, b in pairwise(times))
        assert {p.rating for p in shopper.purchases} <= {1.0, 2.0, 3.0, 4.0, 5.0}
        assert len(set(shopper.motivations)) == 2 and set(shopper.motivations) <= set(CONSUMER.names)
        assert len(shopper.departments) in (0, 2)


def test_seed_changes_the_shoppers() -> None:
    assert simulate(PRODUCTS, 5, seed=7) != simulate(PRODUCTS, 5, seed=8)


def test_small_catalogue_is_refused() -> None:
    with pytest.raises(InputError, match="too few to simulate"):
        simulate(PRODUCTS[:3])


def test_most_purchases_fit_and_are_liked_more() -> None:
    bought = [(fits(u, p.item_id), p.rating or 0.0) for u, s in STORE.sequences.items() for p in s]
    assert 0.76 < mean(fit for fit, _ in bought) < 0.86
    assert mean(r for fit, r in bought if fit) > 4.0 > 2.6 > mean(r for fit, r in bought if not fit)


def test_last_purchase_of_most_is_a_liked_fit() -> None:
    last = {u: s[-1] for u, s in STORE.sequences.items()}
    assert mean(fits(u, p.item_id) and (p.rating or 0) >= 4 for u, p in last.items()) > 0.85


def test_primary_is_bought_about_twice_as_often() -> None:
    only = Counter[bool]()
    for user, purchases in STORE.sequences.items():
        primary, secondary = TRUTH[user]
        for p in purchases:
            serves = SERVES[p.item_id]
            if (primary in serves) != (secondary in serves):
                only[primary in serves] += 1
    assert 1.6 < only[True] / only[False] < 2.5


def test_metadata_is_worth_something_but_not_everything() -> None:
    for key, leanings in (("age", AGE_LEANINGS), ("region", REGION_LEANINGS)):
        leaning = mean(not leanings[STORE.metadata[u][key]].isdisjoint(m) for u, m in TRUTH.items())
        chance = 1 - Fraction(9 * 8, 11 * 10)
        assert float(chance) + 0.1 < leaning < 0.8


# How hard the store is


def hits_at_5(score: Callable[[str, str], float]) -> float:
    """HR@5 of the last purchase among 29 uniform negatives, as the expectation over the orders of ties."""
    rng = random.Random(0)
    hits = []
    for user, purchases in STORE.sequences.items():
        owned = {p.item_id for p in purchases}
        target = score(user, purchases[-1].item_id)
        others = [score(user, i) for i in rng.sample([i for i in STORE.items if i not in owned], 29)]
        above, level = sum(s > target for s in others), sum(s == target for s in others)
        hits.append(min(max((5 - above) / (level + 1), 0.0), 1.0))
    return mean(hits)


def test_knowing_the_motivations_helps_much_but_is_not_all() -> None:
    oracle = hits_at_5(lambda u, i: 2 * (TRUTH[u][0] in SERVES[i]) + (TRUTH[u][1] in SERVES[i]))
    assert 0.5 < oracle < 0.75


def test_motives_are_read_better_from_what_products_serve_than_from_where_they_stand() -> None:
    seen = {u: [p.item_id for p in s[:-1]] for u, s in STORE.sequences.items()}
    motives = {u: Counter(d for i in items for d in SERVES[i]) for u, items in seen.items()}
    departments = {u: Counter(DEPARTMENT[i] for i in items) for u, items in seen.items()}
    by_motive = hits_at_5(lambda u, i: sum(motives[u][d] for d in SERVES[i]))
    by_department = hits_at_5(lambda u, i: departments[u][DEPARTMENT[i]])
    assert 5 / 30 < by_department < 0.3 < 0.4 < by_motive


def test_popularity_stays_near_chance() -> None:
    bought = Counter(p.item_id for s in STORE.sequences.values() for p in s[:-1])
    assert 5 / 30 < hits_at_5(lambda _, i: bought[i]) < 0.3


# Recovery


def profile(*dimensions: str) -> Profile:
    return Profile(
        motivations=tuple(Motivation(dimension=d, description="x", strength="weak", evidence=(1,)) for d in dimensions)
    )


def test_recovery_by_hand() -> None:
    result = recovery(
        {"a": profile("learning", "value", "enjoyment"), "b": profile("identity"), "c": profile()},
        {
            "a": ("value", "identity"),
            "b": ("belonging", "identity", "value"),
            "c": ("value", "learning"),
            "unseen": ("value",),
        },
    )
    assert result.n == 3
    # a: found, 1 of 3, 1 of 2; b: not found, 1 of 1, 1 of 3; c: nothing.
    assert result.primary_found == float(Fraction(1, 3))
    assert result.precision == float(Fraction(4, 9))
    assert result.recall == float(Fraction(5, 18))
    # Inclusion 3/11, 1/11, 0; expected precision 2/11, 3/11, 0.
    assert result.chance_primary_found == result.chance_recall == float(Fraction(4, 33))
    assert result.chance_precision == float(Fraction(5, 33))
    assert result.above_chance_low < result.primary_found - result.chance_primary_found < result.above_chance_high


def test_a_repeated_dimension_counts_once() -> None:
    truth = {"u": ("value", "learning")}
    assert recovery({"u": profile("value", "value")}, truth) == recovery({"u": profile("value")}, truth)


@pytest.mark.parametrize("size", range(6))
@pytest.mark.parametrize("planted", [("one",), ("two", "five"), ("four", "one", "three")])
def test_chance_is_the_mean_over_all_profiles_of_that_size(size: int, planted: tuple[str, ...]) -> None:
    names = ("one", "two", "three", "four", "five")
    dimensions = tuple(Dimension(name=n, definition="any", kind="functional") for n in names)
    schema = MotivationSchema(name="five", dimensions=dimensions)
    every = [recovery({"u": profile(*drawn)}, {"u": planted}, schema) for drawn in combinations(names, size)]
    assert mean(r.primary_found for r in every) == pytest.approx(every[0].chance_primary_found)
    assert mean(r.precision for r in every) == pytest.approx(every[0].chance_precision)
    assert mean(r.recall for r in every) == pytest.approx(every[0].chance_recall)


@pytest.mark.parametrize(
    ("profiles", "truth", "message"),
    [
        ({}, {}, "no profiles"),
        ({"u": profile("value")}, {}, "'u' has a profile but no planted"),
        ({"u": profile("value")}, {"u": ()}, "'u' has a profile but no planted"),
        ({"u": profile("thrift")}, {"u": ("value",)}, "'u': thrift is not in schema 'consumer'"),
        ({"u": profile("value")}, {"u": ("thrift",)}, "'u': thrift is not in schema 'consumer'"),
    ],
)
def test_recovery_refuses(profiles: dict[str, Profile], truth: dict[str, tuple[str, ...]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        recovery(profiles, truth)
