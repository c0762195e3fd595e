"""Novelty, popularity, popularity bias, diversity and coverage: by hand, and whatever the lists are."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluate.stats.list_metrics import Background, coverage, list_metrics

SHOP = Background(
    histories={"x": {"a", "b"}, "y": {"a"}, "z": {"a", "c"}},
    users_of={"a": 3, "b": 1, "c": 1},
    categories={
        "a": frozenset({"Toys", "Kites"}),
        "b": frozenset({"Toys", "Balls"}),
        "c": frozenset({"Toys", "Kites"}),
        "e": frozenset({"Home"}),
    },
)


def values(user: str, order: str, history: str, ks: list[int]) -> dict[str, float]:
    frame = list_metrics({user: order}, {user: history}, SHOP, ks)
    return {str(name): float(value) for name, value in frame.loc[user].items()}


def test_by_hand() -> None:
    """Three training users: a has 3, b and c 1, d and e none. x has a and b in the training data."""
    found = values("x", "cade", "ab", [1, 2, 3, 4])
    # -log2 of 2/4, 4/4, 1/4, 1/4
    assert [found[f"novelty@{k}"] for k in (1, 2, 3, 4)] == pytest.approx([1.0, 0.5, 1.0, 1.25])
    # others than x who have c, a, d, e: 1, 2, 0, 0; its history: a 2, b 0
    assert [found[f"popularity@{k}"] for k in (1, 2, 3, 4)] == pytest.approx([1, 1.5, 1, 0.75])
    assert [found[f"popularity bias@{k}"] for k in (1, 2, 3, 4)] == pytest.approx([0, 0.5, 0, -0.25])
    # c and a are of equal categories; d has none; e shares nothing with c and a
    assert [found[f"diversity@{k}"] for k in (2, 3, 4)] == pytest.approx([0, 0, 2 / 3])
    assert "diversity@1" not in found


def test_partly_shared_categories() -> None:
    assert values("x", "ab", "a", [2])["diversity@2"] == pytest.approx(1 - 1 / 3)


def test_what_is_not_defined_is_no_number() -> None:
    found = values("x", "da", "", [2])
    assert math.isnan(found["diversity@2"]) and math.isnan(found["popularity bias@2"])
    assert found["popularity@2"] == 1


def test_a_user_who_is_not_in_the_training_data_is_not_subtracted() -> None:
    assert values("new", "ab", "a", [2])["popularity bias@2"] == pytest.approx((3 + 1) / 2 - 3)


def test_coverage_by_hand() -> None:
    orders = {"x": "abcd", "y": "bacd"}
    one, two = coverage(orders, "abcdefgh", 1), coverage(orders, "abcdefgh", 3)
    assert (one.share, one.recommended, one.reachable) == (0.25, 2, 0.5)
    assert (two.share, two.recommended, two.catalogue) == (0.375, 3, 8)
    with pytest.raises(ValueError, match="without items"):
        coverage(orders, "", 1)


orders = st.dictionaries(st.sampled_from("xyzuvw"), st.permutations("abcde"), min_size=1)


@given(orders, st.integers(1, 5))
def test_whatever_the_lists_are(orders: dict[str, list[str]], k: int) -> None:
    frame = list_metrics(orders, {user: ["a"] for user in orders}, SHOP, [k, 5])
    assert list(frame.index) == sorted(orders)
    most = math.log2(len(SHOP.histories) + 1)
    assert frame[f"novelty@{k}"].between(0, most).all()
    assert frame[f"popularity@{k}"].between(0, 3).all()
    if k > 1:
        assert frame[f"diversity@{k}"].dropna().between(0, 1).all()
    # over all five candidates the order says nothing
    whole = list_metrics({user: sorted(order) for user, order in orders.items()}, {}, SHOP, [5])
    for name in ("novelty@5", "popularity@5", "diversity@5"):
        assert frame[name].tolist() == pytest.approx(whole[name].tolist())
    found, all_of_it = coverage(orders, "abcdefgh", k), coverage(orders, "abcdefgh", 5)
    assert k / 8 <= found.share <= found.reachable == all_of_it.share == 5 / 8


@given(st.permutations("abcde"), st.permutations("abcde"))
def test_the_first_k_alone_count(one: list[str], other: list[str]) -> None:
    mixed = one[:3] + [item for item in other if item not in one[:3]]
    assert values("x", "".join(one), "b", [3]) == pytest.approx(values("x", "".join(mixed), "b", [3]), nan_ok=True)
