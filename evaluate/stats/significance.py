"""Whether a difference between two methods is more than chance: a paired test, corrected over the whole table."""

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
"""Two sums of signed differences this close, as a share of the sum of their sizes, are the same sum added up in
another order. Counting near ties as ties can only raise p."""


class PairedComparison(Difference):
    """A difference of means with its interval and its test.

    Interval and p come from two methods and may disagree at the edge: the interval is this comparison's alone,
    `p_holm` answers for the whole table.

    Attributes:
        p: Of the paired randomization test, for this comparison alone.
        p_holm: Corrected for all comparisons made together; None until that was done.
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

    If the two methods are exchangeable, each user's difference could as well have had the other sign: p is the
    share of all 2^n sign patterns whose mean is at least as far from 0 as the one seen. Users without a difference
    decide nothing. The patterns are counted exactly where they are few (`scipy.stats.permutation_test`) and where
    all differences have one size, as hits have: that is McNemar's exact test. Else `resamples` patterns are drawn,
    and the observed one counts as one more, so p is at least 1 / (resamples + 1).

    Args:
        a: One value per user id.
        b: Likewise for the method compared with.
        seed: Decides the patterns drawn; p depends neither on the order of users nor on which method comes first.
        resamples: Patterns to draw, at least 1; what has no more patterns than that is counted exactly.

    Returns:
        p, above 0 and at most 1; 1 where no user differs.

    Raises:
        InputError: if a user comes twice, no user is in both, a common user's value is not finite, or there are
            no resamples.

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
    # Metrics of ranks take few values: k differences of one size need one binomial draw instead of k signs.
    sizes, group, counts = np.unique(np.abs(values), return_inverse=True, return_counts=True)
    ups = np.bincount(group, weights=values > 0)
    if len(sizes) == 1:
        exact = float(stats.binomtest(int(ups[0]), int(counts[0])).pvalue)
        return max(exact, sys.float_info.min)  # 2^-n of some thousand users is no float any more
    total = float(counts @ sizes)
    bar = abs(2 * float(ups @ sizes) - total) - _TIE * total
    if len(values) <= math.log2(resamples + 1):
        sums = stats.permutation_test(
            (np.repeat(sizes, counts),),
            np.sum,
            permutation_type="samples",
            n_resamples=resamples + 1,
            batch=max(1, _CELLS_PER_BATCH // len(values)),
            vectorized=True,
        ).null_distribution
        return float(np.mean(np.abs(sums) >= bar))
    return (1 + _drawn_beyond(bar, sizes, counts, seed, resamples)) / (resamples + 1)


def _drawn_beyond(bar: float, sizes: NDArray[np.float64], counts: NDArray[np.int64], seed: int, resamples: int) -> int:
    """How many of the drawn sign patterns have a sum of at least `bar` in size."""
    rng = np.random.default_rng(seed)
    batch = max(1, _CELLS_PER_BATCH // len(sizes))
    total = float(counts @ sizes)
    all_differ = len(sizes) == int(counts.sum())
    beyond = 0
    for start in range(0, resamples, batch):
        shape = (min(batch, resamples - start), len(sizes))
        # Bits are several times as fast as binomials of 1, and 20,000 continuous values have only those.
        ups = rng.integers(0, 2, shape, dtype=np.int8) if all_differ else rng.binomial(counts, 0.5, shape)
        beyond += int(np.count_nonzero(np.abs(2 * (ups @ sizes) - total) >= bar))
    return beyond


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected by Holm's step-down: the chance of *any* false alarm in the family stays below alpha.

    It holds under any dependence, which matters here: HR@5 and NDCG@5 of one method say nearly the same.

    Args:
        p_values: Raw p by name, 0 to 1; all comparisons that were made, not only the pleasing ones.

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
    for place, name in enumerate(sorted(p_values, key=lambda name: p_values[name])):
        highest = min(1.0, max(highest, (len(p_values) - place) * p_values[name]))
        adjusted[name] = highest
    return {name: adjusted[name] for name in p_values}


def compare_to(
    reference: pd.DataFrame, others: Mapping[str, pd.DataFrame], seed: int
) -> dict[str, dict[str, PairedComparison]]:
    """Compare methods with one reference on every metric, with Holm's correction over the whole table.

    The family is everything in the result, all methods times all metrics: a further method makes every
    `p_holm` larger or leaves it. Compare what a report shows in one call.

    Args:
        reference: Result of `evaluate.stats.metrics.per_user`.
        others: The same of each method, by name; differences are method minus reference.
        seed: Decides resamples and sign patterns.

    Returns:
        By method and metric, `p_holm` filled in.

    Raises:
        InputError: naming the method that has other metrics than the reference, or whose users cannot be paired
            with the reference's.

    >>> from evaluate.stats.metrics import per_user
    >>> table = compare_to(per_user({"u1": 7, "u2": 9}), {"mar": per_user({"u1": 3, "u2": 2})}, seed=0)
    >>> found = table["mar"]["HR@5"]
    >>> found.mean, found.p, found.p_holm
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
    # Keys of pairs, since a method's name may hold any separator.
    corrected = dict(zip(cells, holm({str(i): p for i, p in enumerate(cells.values())}).values(), strict=True))
    return {
        name: {metric: cell.model_copy(update={"p_holm": corrected[name, metric]}) for metric, cell in row.items()}
        for name, row in table.items()
    }


def _compared(values: pd.Series[float], reference: pd.Series[float], seed: int) -> PairedComparison:
    difference = paired_difference(values, reference, seed)
    return PairedComparison(**difference.model_dump(), p=paired_test(values, reference, seed))
