"""The planner against the exact test it plans for, published sample sizes, and its own reverse."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evaluate.stats.power import SampleSize, detectable, sample_size
from programs.runtime.errors import InputError


@pytest.mark.parametrize(("effect", "users"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_cohens_small_medium_and_large_effect(effect: float, users: int) -> None:
    # What G*Power prints for the paired t-test at power .80, alpha .05, two-sided.
    found = sample_size(sd_of_difference=1.0, difference=effect)
    assert found.users == users
    assert 0.8 <= found.power < 0.83


def test_many_users_follow_the_normal_formula() -> None:
    z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)
    # Half of z(1 - alpha/2)² more users is what the t-test costs (Guenther, 1981).
    expected = (z * 0.45 / 0.03) ** 2 + stats.norm.ppf(0.975) ** 2 / 2
    assert sample_size(0.45, 0.03).users == pytest.approx(expected, abs=1)


def test_planned_users_have_the_power_in_simulation() -> None:
    found = sample_size(sd_of_difference=0.5, difference=0.25)
    samples = np.random.default_rng(0).normal(0.25, 0.5, (4000, found.users))
    seen = float(np.mean(stats.ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05))
    assert seen == pytest.approx(found.power, abs=4 * math.sqrt(0.16 / 4000))


@given(st.floats(0.05, 2), st.floats(0.01, 2), st.floats(0.3, 0.99), st.sampled_from([0.1, 0.05, 0.05 / 12, 1e-4]))
@settings(max_examples=40)
def test_fewest_users_and_smallest_difference_are_each_others_reverse(
    sd: float, difference: float, power: float, alpha: float
) -> None:
    found = sample_size(sd, difference, power, alpha)
    assert found.power >= power
    assert detectable(found.users, sd, power, alpha) <= difference * (1 + 1e-6)
    if found.users > 2:
        assert detectable(found.users - 1, sd, power, alpha) > difference * (1 - 1e-6)


def test_what_asks_for_more_costs_more() -> None:
    base = sample_size(0.4, 0.05).users
    assert sample_size(0.8, 0.05).users > base
    assert sample_size(0.4, 0.025).users == pytest.approx(4 * base, rel=0.02)
    assert sample_size(0.4, 0.05, power=0.9).users > base
    assert sample_size(0.4, 0.05, alpha=0.05 / 8).users > base
    assert detectable(100, 0.4) == pytest.approx(2 * detectable(400, 0.4), rel=0.02)


def test_prices_multiply_and_what_is_unknown_stays_unknown() -> None:
    priced = sample_size(0.4, 0.03, usd_per_user=0.01, seconds_per_user=3.6)
    assert priced.usd == pytest.approx(0.01 * priced.users)
    assert priced.seconds == pytest.approx(3.6 * priced.users)
    assert str(priced).endswith("you need 1,398 users, about $13.98 and 1.4 hours")
    free = sample_size(0.4, 0.03, usd_per_user=0.0)
    assert (free.usd, free.seconds) == (0.0, None)
    unknown = sample_size(0.4, 0.03)
    assert (unknown.usd, unknown.seconds) == (None, None)
    assert str(unknown).endswith("you need 1,398 users, at an unknown price")
    assert SampleSize.model_validate_json(priced.model_dump_json()) == priced


def test_extremes() -> None:
    assert sample_size(0.001, 1.0).users == 2
    assert sample_size(0.4, 1e-4).users == pytest.approx((2.8015852 * 4000) ** 2, rel=1e-4)
    with pytest.raises(InputError, match="more than a billion users"):
        sample_size(1.0, 1e-9)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"sd_of_difference": 0.0}, "sd 0.0"),
        ({"sd_of_difference": math.nan}, "sd nan"),
        ({"difference": 0.0}, "difference 0.0"),
        ({"difference": -0.03}, "difference -0.03"),
        ({"power": 1.0}, "power 1.0"),
        ({"power": 80}, "power 80"),
        ({"alpha": 0.0}, "alpha 0.0"),
        ({"usd_per_user": -1.0}, "-1.0 dollars per user"),
        ({"seconds_per_user": math.inf}, "inf seconds per user"),
    ],
)
def test_numbers_out_of_range(arguments: dict[str, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        sample_size(**({"sd_of_difference": 0.4, "difference": 0.03} | arguments))


def test_no_reverse_out_of_range() -> None:
    with pytest.raises(InputError, match="1 users"):
        detectable(1, 0.4)
    with pytest.raises(InputError, match=r"power 0\.05 must be above alpha 0\.05"):
        detectable(100, 0.4, power=0.05)
