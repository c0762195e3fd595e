"""Confidence intervals: of a mean over users, and of the paired difference between two methods."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from programs.runtime.errors import InputError

BOOTSTRAP_UP_TO = 5_000
"""Above this many users the interval is mean ± z·s/√n: the difference to the bootstrap's is then below its simulation
error, and it takes milliseconds instead of seconds."""

_CELLS_PER_BATCH = 1_000_000


class Estimate(BaseModel):
    """A mean over users and its two-sided confidence interval.

    Attributes:
        n: Users in the mean; with n = 1, or equal values, the interval is not informative.
        level: Confidence level, 0 to 1.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    low: float
    high: float
    n: int = Field(ge=1)
    level: float = Field(default=0.95, gt=0, lt=1)


class Difference(Estimate):
    """Mean of a - b over the users both have, with its interval.

    Attributes:
        unpaired: Users with a value of only one method, left out.
    """

    unpaired: int = Field(ge=0)


def bootstrap_mean(
    values: ArrayLike, seed: int, level: float = 0.95, resamples: int = 2000, shares: bool = True
) -> Estimate:
    """Mean and percentile-bootstrap interval of one value per user, widened for small n.

    For equal values, where a bootstrap has no spread, 0/1 data gets the Wilson score interval and other data the
    degenerate [mean, mean]. Above `BOOTSTRAP_UP_TO` values the normal approximation is used.

    Args:
        values: n finite numbers; their order does not matter.
        seed: Decides the resamples.
        level: Confidence level, between 0 and 1.
        resamples: Bootstrap resamples.
        shares: Whether values lie between 0 and 1 by definition, so that equal ones of 0 or 1 are hits or misses; False
            for counts, bits and differences.

    Raises:
        InputError: if there are no values, one is not finite, or the level is not between 0 and 1.

    >>> bootstrap_mean([0.5, 0.5], seed=0)
    Estimate(mean=0.5, low=0.5, high=0.5, n=2, level=0.95)
    >>> round(bootstrap_mean([1, 1, 1, 1, 1], seed=0).low, 3)
    0.566
    """
    sample = _sample(values, level)
    if shares and sample[0] == sample[-1] and sample[0] in (0.0, 1.0):
        wilson = stats.binomtest(int(sample.sum()), len(sample)).proportion_ci(level, method="wilson")
        low, high = float(wilson.low), float(wilson.high)
    else:
        low, high = _interval(sample, seed, level, resamples)
    return Estimate(mean=float(sample.mean()), low=low, high=high, n=len(sample), level=level)


def paired_difference(
    a: Mapping[str, float] | pd.Series[float],
    b: Mapping[str, float] | pd.Series[float],
    seed: int,
    level: float = 0.95,
    resamples: int = 2000,
) -> Difference:
    """Mean of a - b over common users; pairing removes differences in difficulty between users.

    Args:
        a: One value per user id.
        b: Likewise for the other method.
        seed: Decides the resamples.

    Returns:
        The difference; the interval is degenerate if all users differ by the same amount.

    Raises:
        InputError: if a user is repeated, no user is in both, or a common user's value is not finite.

    >>> paired_difference({"u1": 1.0, "u2": 0.5}, {"u2": 0.25, "u1": 0.75, "u3": 0.0}, seed=0)
    Difference(mean=0.25, low=0.25, high=0.25, n=2, level=0.95, unpaired=1)
    """
    values, unpaired = paired_values(a, b)
    sample = _sample(values, level)
    low, high = _interval(sample, seed, level, resamples)
    return Difference(mean=float(sample.mean()), low=low, high=high, n=len(sample), level=level, unpaired=unpaired)


def paired_values(
    a: Mapping[str, float] | pd.Series[float], b: Mapping[str, float] | pd.Series[float]
) -> tuple[NDArray[np.float64], int]:
    """a - b of every common user, in undefined order, and the number of users in only one of the two.

    Raises:
        InputError: if a user is repeated, no user is in both, or a common user's value is not finite.

    >>> paired_values({"u1": 1.0, "u2": 0.5}, {"u2": 0.25, "u1": 0.75, "u3": 0.0})
    (array([0.25, 0.25]), 1)
    """
    left, right = _by_user(a), _by_user(b)
    common = left.index.intersection(right.index)
    if not len(common):
        raise InputError(f"no user is in both: {len(left)} and {len(right)} users; compare runs on the same cases")
    values = _finite(left[common].to_numpy() - right[common].to_numpy())
    return values, len(left) + len(right) - 2 * len(common)


def _by_user(values: Mapping[str, float] | pd.Series[float]) -> pd.Series[float]:
    series = values if isinstance(values, pd.Series) else pd.Series(dict(values), dtype=float)
    if not series.index.is_unique:
        raise InputError(f"user {series.index[series.index.duplicated()][0]!r} is repeated; give one value per user")
    return series


def _sample(values: ArrayLike, level: float) -> NDArray[np.float64]:
    """Sorted values, so that results do not depend on the users' order."""
    sample = np.sort(_finite(values))
    if not 0 < level < 1:
        raise InputError(f"confidence level {level}: give one between 0 and 1, such as 0.95")
    return sample


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64).ravel()
    if not len(numbers):
        raise InputError("no values to average: no user was scored")
    if not np.isfinite(numbers).all():
        raise InputError(f"{int((~np.isfinite(numbers)).sum())} of {len(numbers)} values are not finite numbers")
    return numbers


def _interval(sample: NDArray[np.float64], seed: int, level: float, resamples: int) -> tuple[float, float]:
    mean = float(sample.mean())
    if sample[0] == sample[-1]:
        return mean, mean
    if len(sample) > BOOTSTRAP_UP_TO:
        half = float(stats.norm.ppf(0.5 + level / 2)) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
        return mean - half, mean + half
    interval = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=resamples,
        batch=max(1, _CELLS_PER_BATCH // len(sample)),
        vectorized=True,
        confidence_level=_expanded(level, len(sample)),
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)


def _expanded(level: float, n: int) -> float:
    """Level at which the percentile interval is as wide as a t interval (Hesterberg 2015, section 3.4).

    Plain percentiles lack the factor sqrt((n - 1) / n) and the t quantile: with 30 users they cover 92 to 94%.
    """
    t = stats.t.ppf(0.5 + level / 2, n - 1)
    return float(1 - 2 * stats.norm.cdf(-math.sqrt(n / (n - 1)) * t))
