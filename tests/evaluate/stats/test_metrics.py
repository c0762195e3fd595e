"""Metrics and intervals against hand-computed fractions, and properties that hold for any ranks."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.stats.intervals import BOOTSTRAP_UP_TO, Estimate, bootstrap_mean, paired_difference
from evaluate.stats.metrics import bounds, chance, hit, ndcg, per_user, rank_of, summarize
from programs.runtime.errors import InputError

ranks_of_users = st.dictionaries(st.text(min_size=1, max_size=4), st.integers(1, 30), min_size=1, max_size=40)

# Ranks whose gains 1 / log2(rank + 1) are fractions: 1, 1/2, 1/3 (rank 7, inside 10 only), 0 (ranks 11 and 15).
RATIONAL = {"a": 1, "b": 3, "c": 7, "d": 15, "e": 11}


def test_hand_computed_means() -> None:
    means = per_user(RATIONAL).mean()
    assert means["HR@5"] == pytest.approx(float(Fraction(2, 5)))
    assert means["NDCG@5"] == pytest.approx(float(Fraction(3, 10)))
    assert means["HR@10"] == pytest.approx(float(Fraction(3, 5)))
    assert means["NDCG@10"] == pytest.approx(float(Fraction(11, 30)))


@pytest.mark.parametrize("k", [1, 5, 10])
@pytest.mark.parametrize("rank", [1, 2, 5, 6, 10, 11, 30])
def test_one_user_and_many_agree(rank: int, k: int) -> None:
    row = per_user({"u": rank}, ks=(k,)).loc["u"]
    assert row[f"HR@{k}"] == hit(rank, k) == (1.0 if rank <= k else 0.0)
    assert row[f"NDCG@{k}"] == pytest.approx(ndcg(rank, k))
    assert ndcg(rank, k) == pytest.approx(math.log(2) / math.log(rank + 1) if rank <= k else 0.0)


def test_rank_of_is_one_based_and_refuses_a_broken_order() -> None:
    assert [rank_of(("x", "y", "z"), item) for item in "xyz"] == [1, 2, 3]
    with pytest.raises(InputError, match="'q' is 0 times"):
        rank_of(("x", "y"), "q")
    with pytest.raises(InputError, match="'x' is 2 times"):
        rank_of(("x", "y", "x"), "x")


@pytest.mark.parametrize("rank", [0, -1, 2.5, math.nan, "3", None])
def test_a_rank_that_is_none_is_refused(rank: object) -> None:
    with pytest.raises(InputError, match="user 'u'"):
        per_user({"ok": 1, "u": rank})  # type: ignore[dict-item]


def test_names_carry_the_list_size() -> None:
    assert list(summarize(per_user(RATIONAL), negatives=99)) == ["HR@5/100", "NDCG@5/100", "HR@10/100", "NDCG@10/100"]
    with pytest.raises(InputError, match="no user was scored"):
        summarize(per_user({}), negatives=29)


@given(ranks_of_users, st.randoms())
@settings(max_examples=12, deadline=None)
def test_order_of_users_does_not_matter(ranks: dict[str, int], random: object) -> None:
    shuffled = list(ranks.items())
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert summarize(per_user(ranks), 29) == summarize(per_user(dict(shuffled)), 29)


@given(ranks_of_users, st.integers(0, 10), st.lists(st.integers(1, 30), min_size=10, max_size=10))
@settings(max_examples=50, deadline=None)
def test_bounds_hold_whatever_the_unresolved_would_have_given(
    ranks: dict[str, int], lost: int, later: list[int]
) -> None:
    # Longer than any drawn user id, so that the late users are new.
    everyone = ranks | {f"late user {i}": rank for i, rank in enumerate(later[:lost])}
    limits = bounds(per_user(ranks), unresolved=lost, negatives=29)
    for name, mean in per_user(everyone).mean().items():
        limit = limits[f"{name}/30"]
        assert limit.low - 1e-12 <= mean <= limit.high + 1e-12
        assert limit.high - limit.low == pytest.approx(lost / len(everyone))


def test_bounds_by_hand() -> None:
    limits = bounds(per_user(RATIONAL), unresolved=5, negatives=29)
    assert (limits["NDCG@10/30"].low, limits["NDCG@10/30"].high) == pytest.approx((11 / 60, 41 / 60))
    nothing = bounds(per_user({}), unresolved=3, negatives=29)["HR@5/30"]
    assert (nothing.low, nothing.high, nothing.resolved) == (0.0, 1.0, 0)
    with pytest.raises(InputError):
        bounds(per_user({}), unresolved=0, negatives=29)


def test_chance_is_the_mean_over_all_ranks() -> None:
    uniform = per_user({f"{rank:02}": rank for rank in range(1, 31)}).mean()
    assert chance(30) == pytest.approx(uniform.to_dict())
    assert chance(30)["HR@5"] == pytest.approx(5 / 30)
    assert chance(3)["HR@5"] == 1.0


# --- intervals


def test_interval_is_reproducible_and_holds_the_mean() -> None:
    values = [0.0, 1.0, 1.0, 0.5, 0.0, 0.25]
    first = bootstrap_mean(values, seed=3)
    assert first == bootstrap_mean(values[::-1], seed=3)
    assert first != bootstrap_mean(values, seed=4)
    assert 0.0 <= first.low < first.mean < first.high <= 1.0
    assert first.mean == pytest.approx(float(Fraction(11, 24)))
    narrow = bootstrap_mean(values, seed=3, level=0.5)
    assert first.low < narrow.low < narrow.high < first.high


@pytest.mark.parametrize("n", [1, 2, 10, 6000])
def test_constant_zero_one_data_gets_wilson(n: int) -> None:
    # Wilson for 0 of n: [0, z²/(n + z²)].
    z2 = 1.959963984540054**2
    zero, one = bootstrap_mean([0] * n, seed=0), bootstrap_mean([1] * n, seed=0)
    assert (zero.mean, zero.n) == (0.0, n)
    assert zero.low == pytest.approx(0.0, abs=1e-12)
    assert zero.high == pytest.approx(z2 / (n + z2))
    assert (one.low, one.high) == pytest.approx((n / (n + z2), 1.0))


@pytest.mark.parametrize("n", [1, 7, 6000])
def test_other_constant_data_is_degenerate(n: int) -> None:
    assert bootstrap_mean([0.5] * n, seed=0) == Estimate(mean=0.5, low=0.5, high=0.5, n=n)
    assert bootstrap_mean([0.0] * n, seed=0, shares=False) == Estimate(mean=0.0, low=0.0, high=0.0, n=n)


@pytest.mark.parametrize(
    ("values", "words"), [([], "no values"), ([0.1, math.nan], "1 of 2 values"), ([math.inf], "not finite")]
)
def test_values_that_cannot_be_averaged(values: list[float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        bootstrap_mean(values, seed=0)


@pytest.mark.parametrize("level", [0.0, 1.0, 95])
def test_level_outside_zero_one(level: float) -> None:
    with pytest.raises(InputError, match="confidence level"):
        bootstrap_mean([0.0, 1.0], seed=0, level=level)


def test_many_users_use_the_normal_interval_and_it_agrees_with_the_bootstrap() -> None:
    hits = np.resize([1.0, 0.0, 0.0, 1.0, 0.0], BOOTSTRAP_UP_TO + 5)
    many, few = bootstrap_mean(hits, seed=0), bootstrap_mean(hits[:BOOTSTRAP_UP_TO], seed=0)
    half = 1.959963984540054 * math.sqrt(0.4 * 0.6 / (len(hits) - 1))
    assert (many.low, many.high) == pytest.approx((0.4 - half, 0.4 + half), abs=1e-9)
    assert (few.low, few.high) == pytest.approx((many.low, many.high), abs=1.5e-3)


def test_coverage_is_near_its_level() -> None:
    rng = np.random.default_rng(0)
    estimates = [bootstrap_mean(rng.random(60) < 0.4, seed=i, resamples=400) for i in range(200)]
    covered = sum(e.low <= 0.4 <= e.high for e in estimates) / len(estimates)
    assert 0.88 <= covered <= 0.99


def test_pairs_are_matched_by_user_not_by_position() -> None:
    a = pd.Series({"u1": 1.0, "u2": 0.0, "u3": 0.5, "only a": 1.0})
    b = pd.Series({"only b": 0.0, "u3": 0.5, "u2": 0.5, "u1": 0.0})
    found = paired_difference(a, b, seed=0)
    assert found.mean == pytest.approx((1 - 0.5 + 0) / 3)
    assert (found.n, found.unpaired) == (3, 2)
    mirrored = paired_difference(b, a, seed=0)
    assert mirrored.mean == pytest.approx(-found.mean)


def test_pairing_takes_out_what_is_common() -> None:
    rng = np.random.default_rng(1)
    easy = pd.Series(rng.random(300), index=[f"u{i}" for i in range(300)])
    better = easy + rng.normal(0.02, 0.02, 300)
    paired = paired_difference(better, easy, seed=0)
    alone = bootstrap_mean(easy, seed=0)
    assert 0 < paired.low < 0.02 < paired.high
    assert paired.high - paired.low < (alone.high - alone.low) / 5


def test_pairs_that_cannot_be_made() -> None:
    with pytest.raises(InputError, match="no user is in both"):
        paired_difference({"a": 1.0}, {"b": 1.0}, seed=0)
    with pytest.raises(InputError, match="'a' is repeated"):
        paired_difference(pd.Series([1.0, 0.0], index=["a", "a"]), {"a": 1.0}, seed=0)
    all_better = paired_difference({"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 0.0}, seed=0)
    assert (all_better.low, all_better.high, all_better.n) == (1.0, 1.0, 2)
