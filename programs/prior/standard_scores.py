"""Standard scores (z-scores) over the candidates of a case, with unknown values."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from programs.prior.scorers import Scores


def z(values: NDArray[np.floating], counts: NDArray[np.floating] | None = None) -> Scores:
    """Standard scores over the n candidates of a case, shape (n,), or of several features of them, shape (n, k).

    More axes are more of the same: (n, lists, k) for lists of n candidates, the shorter ones filled with NaN.

    NaN (unknown) stays NaN and does not count; values that are equal up to rounding become 0, where
    `scipy.stats.zscore` gives NaN or noise.

    Args:
        counts: How many candidates each of the n stands for, itself included, of up to two axes; None: 1.

    >>> z(np.array([1.0, 3.0, np.nan])).tolist(), z(np.array([0.1, 0.1, 0.1])).tolist()
    ([-1.0, 1.0, nan], [0.0, 0.0, 0.0])
    >>> z(np.array([1.0, 3.0]), counts=np.array([1.0, 3.0])).tolist() == z(np.array([1.0, 3.0, 3.0, 3.0]))[:2].tolist()
    True
    """
    x = np.asarray(values, dtype=float)
    known = ~np.isnan(x)
    weights = known if counts is None else np.where(known, counts if x.ndim == 1 else counts[:, None], 0.0)
    n = np.maximum(weights.sum(axis=0), 1)
    filled = np.where(known, x, 0.0)
    centred = x - (weights * filled).sum(axis=0) / n
    spread = np.sqrt((weights * np.where(known, centred**2, 0.0)).sum(axis=0) / n)
    equal = spread <= 1e-6 * np.abs(filled).max(axis=0, initial=0.0)
    scores: Scores = np.where(known & equal, 0.0, centred / np.where(equal, 1.0, spread))
    return scores
