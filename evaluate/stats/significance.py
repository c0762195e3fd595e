"""Significance of differences between methods: paired randomization test with Holm's correction."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats

from evaluate.stats.intervals import Difference, paired_difference, paired_values
from programs.runtime.errors import InputError

_CELLS_PER_BATCH = 1_000_000

_TIE = 1e-10
"""Relative tolerance for equal sums of signed differences, whose order of addition differs; can only raise p."""


class PairedComparison(Difference):
    """A difference of means with its interval and its test.

    Interval and p-values come from two methods and may disagree in borderline cases.

    Attributes:
        p: Of the paired randomization test, for this comparison alone.
        p_holm: Corrected for all comparisons of the table; None before the correction.
    """

    p: float = Field(gt=0, le=1)
    p_holm: float | None = Field(default=None, gt=0, le=1)


def paired_test(
    a: Mapping[str, float] | pd.Series[float],
    b: Mapping[str, float] | pd.Series[float],
    seed: int,
    resamples: int = 9999,
) -> float:
    """Two-sided p of the paired randomization test on the mean difference.

    If the two methods are exchangeable, the sign of each user's difference is random: p is the share of all 2^n sign
    patterns whose mean is at least as far from 0 as the observed one. Users without a difference are irrelevant. The
    patterns are counted exactly if they are few (`scipy.stats.permutation_test`) or all differences have the same size,
    as for hits (McNemar's exact test). Else `resamples` patterns are drawn and the observed one is added, so p is at
    least 1 / (resamples + 1).

    Args:
        a: One value per user id.
        b: Likewise for the other method.
        seed: Decides the patterns drawn; p depends neither on the order of users nor on that of the methods.
        resamples: Patterns to draw, at least 1; up to that number of patterns all are counted.

    Returns:
        p, above 0 and at most 1; 1 if no user differs.

    Raises:
        InputError: if a user is repeated, no user is in both, a common user's value is not finite, or `resamples` is
            below 1.

    >>> users = ["u1", "u2", "u3", "u4", "u5", "u6"]
    >>> paired_test(dict.fromkeys(users, 0.5), dict.fromkeys(users, 0.25), seed=0)  # 2 of 64 patterns
    0.03125
    """
    if resamples < 1:
        raise InputError(f"{resamples} resamples: give at least 1")
    values, _ = paired_values(a, b)
    values = values[values != 0]
    if not len(values):
        return 1.0
    # Metrics of ranks have few distinct values: one binomial draw replaces the signs of k equal differences.
    sizes, group, counts = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    ups = np.bincount(group, weights=values > 0)
    if len(sizes) == 1:
        exact = float(stats.binomtest(int(ups[0]), int(counts[0])).pvalue)
        return max(exact, sys.float_info.min)  # 2^-n of some thousand users underflows
    total = float(counts @ sizes)
    threshold = abs(2 * float(ups @ sizes) - total) - _TIE * total
    if len(values) <= math.log2(resamples + 1):
        sums = stats.permutation_test(
            (np.repeat(sizes, counts),),
            np.sum,
            permutation_type="samples",
            n_resamples=resamples + 1,
            batch=max(1, _CELLS_PER_BATCH // len(values)),
            vectorized=True,
        ).null_distribution
        return float(np.mean(np.abs(sums) >= threshold))
    return (1 + _drawn_beyond(threshold, sizes, counts, seed, resamples)) / (resamples + 1)


def _drawn_beyond(
    threshold: float, sizes: NDArray[np.float64], counts: NDArray[np.int64], seed: int, resamples: int
) -> int:
    """Number of drawn sign patterns whose sum is at least `threshold` in absolute value."""
    rng = np.random.default_rng(seed)
    batch = max(1, _CELLS_PER_BATCH // len(sizes))
    total = float(counts @ sizes)
    all_differ = len(sizes) == int(counts.sum())
    beyond = 0
    for start in range(0, resamples, batch):
        shape = (min(batch, resamples - start), len(sizes))
        # Random bits are several times faster than binomials of 1, which continuous values need only.
        ups = rng.integers(0, 2, shape, dtype=np.int8) if all_differ else rng.binomial(counts, 0.5, shape)
        beyond += int(np.count_nonzero(np.abs(2 * (ups @ sizes) - total) >= threshold))
    return beyond


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected by Holm's step-down procedure, which controls the family-wise error rate.

    It is valid under any dependence; HR@5 and NDCG@5 of one method are strongly dependent.

    Args:
        p_values: Raw p by name, 0 to 1, of all comparisons that were made.

    Returns:
        Adjusted p under the same names in the same order; never below the raw p, at most 1.

    Raises:
        InputError: naming the p that is not between 0 and 1.

    >>> holm({"a": 0.04, "b": 0.01, "c": 0.03})
    {'a': 0.06, 'b': 0.03, 'c': 0.06}
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise InputError(f"p-value {p} of {name!r}: give one between 0 and 1")
    adjusted: dict[str, float] = {}
    highest = 0.0
    for index, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = min(1.0, max(highest, (len(p_values) - index) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def compare_to(
    reference: pd.DataFrame, others: Mapping[str, pd.DataFrame], seed: int
) -> dict[str, dict[str, PairedComparison]]:
    """Compare methods with one reference on every metric, with Holm's correction over the whole table.

    The family is all methods times all metrics of the result; compare everything that a report shows in one call.

    Args:
        reference: Result of `evaluate.stats.metrics.per_user`.
        others: The same of each method, by name; differences are method minus reference.
        seed: Decides resamples and sign patterns.

    Returns:
        By method and metric, `p_holm` filled in.

    Raises:
        InputError: naming the method whose metrics differ from the reference's, or without users in common.

    >>> from evaluate.stats.metrics import per_user
    >>> table = compare_to(per_user({"u1": 7, "u2": 9}), {"mar": per_user({"u1": 3, "u2": 2})}, seed=0)
    >>> hit_rate = table["mar"]["HR@5"]
    >>> hit_rate.mean, hit_rate.p, hit_rate.p_holm
    (1.0, 0.5, 1.0)
    """
    table: dict[str, dict[str, PairedComparison]] = {}
    for name, frame in others.items():
        if set(frame.columns) != set(reference.columns):
            raise InputError(
                f"{name!r} has the metrics {', '.join(frame.columns)}, the reference {', '.join(reference.columns)}; "
                "use the same cutoffs for both"
            )
        try:
            table[name] = {metric: _compared(frame[metric], reference[metric], seed) for metric in reference.columns}
        except InputError as error:
            raise InputError(f"{name!r} against the reference: {error}") from None
    cells = {(name, metric): cell.p for name, row in table.items() for metric, cell in row.items()}
    # Numbers as keys, because a method's name may contain any separator.
    corrected = dict(zip(cells, holm({str(i): p for i, p in enumerate(cells.values())}).values(), strict=True))
    return {
        name: {metric: cell.model_copy(update={"p_holm": corrected[name, metric]}) for metric, cell in row.items()}
        for name, row in table.items()
    }


def _compared(values: pd.Series[float], reference: pd.Series[float], seed: int) -> PairedComparison:
    difference = paired_difference(values, reference, seed)
    return PairedComparison(**difference.model_dump(), p=paired_test(values, reference, seed))
