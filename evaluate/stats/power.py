"""Power analysis: users that a paired comparison needs and their cost, or the difference that n users can detect."""

from __future__ import annotations

import math

from pydantic import BaseModel, ConfigDict, Field
from scipy import optimize, stats

from programs.runtime.errors import InputError

_MOST_USERS = 10**9


class SampleSize(BaseModel):
    """Number of users that a paired comparison needs.

    Attributes:
        users: Fewest users with the requested power.
        power: Power with that many users.
        difference: Mean difference to detect.
        sd: Standard deviation of the per-user differences.
        alpha: Two-sided significance level.
        usd: Dollars for all users; None if unknown.
        seconds: Seconds for all users; None if unknown.
    """

    model_config = ConfigDict(frozen=True)

    users: int = Field(ge=2)
    power: float = Field(gt=0, le=1)
    difference: float = Field(gt=0)
    sd: float = Field(gt=0)
    alpha: float = Field(gt=0, lt=1)
    usd: float | None = Field(default=None, ge=0)
    seconds: float | None = Field(default=None, ge=0)

    def __str__(self) -> str:
        price = "at an unknown price" if self.usd is None else f"about ${self.usd:.2f}"
        hours = "" if self.seconds is None else f" and {self.seconds / 3600:.1f} hours"
        return (
            f"to detect a difference of {self.difference:g} with power {self.power:.2f} (two-sided alpha "
            f"{self.alpha:g}) you need {self.users:,} users, {price}{hours}"
        )


def sample_size(
    sd_of_difference: float,
    difference: float,
    power: float = 0.8,
    alpha: float = 0.05,
    usd_per_user: float | None = None,
    seconds_per_user: float | None = None,
) -> SampleSize:
    """Fewest users with which a paired t-test detects a mean difference, by its exact power (noncentral t).

    The randomization test of `evaluate.stats.significance` has the same power except for very few users.

    Args:
        sd_of_difference: Standard deviation over users of method minus reference, from a pilot run on dev users.
        difference: Smallest relevant mean difference, in units of the metric.
        power: Probability to detect it, between 0 and 1.
        alpha: Two-sided significance level, between 0 and 1; with Holm's correction of m comparisons, alpha / m.
        usd_per_user: Dollars per user, for both methods if both have to be run; None if unknown.
        seconds_per_user: Wall-clock seconds per user; None if unknown.

    Raises:
        InputError: if a number is out of range, or more than a billion users are needed.

    >>> print(sample_size(sd_of_difference=0.4, difference=0.03, usd_per_user=0.012))
    to detect a difference of 0.03 with power 0.80 (two-sided alpha 0.05) you need 1,398 users, about $16.78
    >>> sample_size(sd_of_difference=0.4, difference=0.03).usd is None
    True
    """
    _check(sd_of_difference, power, alpha)
    if not (difference > 0 and math.isfinite(difference)):
        raise InputError(f"difference {difference}: give the size of a difference, above 0")
    for unit, value in (("dollars", usd_per_user), ("seconds", seconds_per_user)):
        if value is not None and not (value >= 0 and math.isfinite(value)):
            raise InputError(f"{value} {unit} per user: give 0 or more, or nothing if it is unknown")
    effect = difference / sd_of_difference
    high = 2
    while high < _MOST_USERS and _power(high, effect, alpha) < power:
        high *= 2
    if high >= _MOST_USERS:
        raise InputError(f"a difference of {difference} with sd {sd_of_difference} needs more than a billion users")
    low = high // 2  # has too little power, or is 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, effect, alpha) >= power else (middle, high)
    return SampleSize(
        users=high,
        power=_power(high, effect, alpha),
        difference=difference,
        sd=sd_of_difference,
        alpha=alpha,
        usd=None if usd_per_user is None else high * usd_per_user,
        seconds=None if seconds_per_user is None else high * seconds_per_user,
    )


def detectable(n: int, sd_of_difference: float, power: float = 0.8, alpha: float = 0.05) -> float:
    """Smallest mean difference that a paired t-test detects with n users.

    Args:
        n: Users ranked by both methods, at least 2.
        sd_of_difference: Standard deviation over users of method minus reference.
        power: Probability to detect the difference, above `alpha` and below 1.
        alpha: Two-sided significance level, between 0 and 1.

    Returns:
        The difference, in units of the metric.

    Raises:
        InputError: if a number is out of range.

    >>> round(detectable(1398, sd_of_difference=0.4), 4)
    0.03
    """
    _check(sd_of_difference, power, alpha)
    if n < 2:
        raise InputError(f"{n} users: a standard deviation needs at least 2")
    if power <= alpha:
        raise InputError(f"power {power} must be above alpha {alpha}, which a test reaches without any difference")
    high = 1.0
    while _power(n, high, alpha) < power:
        high *= 2
    return float(optimize.brentq(lambda effect: _power(n, effect, alpha) - power, 0.0, high)) * sd_of_difference


def _check(sd: float, power: float, alpha: float) -> None:
    if not (sd > 0 and math.isfinite(sd)):
        raise InputError(f"sd {sd}: give the standard deviation of per-user differences, above 0")
    for name, value in (("power", power), ("alpha", alpha)):
        if not 0 < value < 1:
            raise InputError(f"{name} {value}: give one between 0 and 1")


def _power(n: int, effect: float, alpha: float) -> float:
    """Probability that the two-sided paired t-test of n users rejects, for a mean of `effect` standard deviations."""
    critical = float(stats.t.ppf(1 - alpha / 2, n - 1))
    shift = effect * math.sqrt(n)
    # The lower tail by symmetry: nct.cdf(-critical, n - 1, shift) is sometimes nan above shifts of 4 (scipy 1.17).
    return float(stats.nct.sf(critical, n - 1, shift) + stats.nct.sf(critical, n - 1, -shift))
