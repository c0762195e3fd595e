"""Hit rate, NDCG, MRR and MAP for one target per user, with bounds for unresolved users."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from evaluate.stats.intervals import Estimate, bootstrap_mean
from programs.runtime.errors import InputError, quoted

CUTOFFS = (5, 10)
"""The paper's k (section 4.3)."""


def hit(rank: int, k: int) -> float:
    """HR@k of one user: 1 if the target is among the first k, else 0.

    Args:
        rank: 1-based rank of the target.

    >>> hit(5, 5), hit(6, 5)
    (1.0, 0.0)
    """
    return 1.0 if _checked(rank) <= k else 0.0


def ndcg(rank: int, k: int) -> float:
    """NDCG@k of one user with a single target: 1 / log2(rank + 1) within the first k, else 0. The ideal DCG is 1.

    Args:
        rank: 1-based rank of the target.

    >>> ndcg(1, 5), ndcg(3, 5), ndcg(6, 5)
    (1.0, 0.5, 0.0)
    """
    return 1.0 / math.log2(rank + 1) if _checked(rank) <= k else 0.0


def reciprocal_rank(rank: int, k: int) -> float:
    """RR@k of one user: 1 / rank of the target within the first k, else 0; its mean over users is MRR@k.

    It is also the average precision AP@k, whose mean is MAP@k: with one target the only precision in that average is
    1 / rank.

    Args:
        rank: 1-based rank of the target.

    >>> reciprocal_rank(1, 5), reciprocal_rank(4, 5), reciprocal_rank(6, 5)
    (1.0, 0.25, 0.0)
    """
    return 1.0 / rank if _checked(rank) <= k else 0.0


def _checked(rank: int) -> int:
    if rank < 1:
        raise InputError(f"rank {rank}: ranks start at 1")
    return rank


def rank_of(ranking_order: Sequence[str], target: str) -> int:
    """1-based rank of the target in an order, best first.

    Raises:
        InputError: if the target is not in the order, or repeated.

    >>> rank_of(("b", "a", "c"), "a")
    2
    """
    times = ranking_order.count(target)
    if times != 1:
        raise InputError(
            f"target {quoted(target)} is {times} times in an order of {len(ranking_order)} items, not once"
        )
    return ranking_order.index(target) + 1


def per_user(ranks: Mapping[str, int], ks: Sequence[int] = CUTOFFS) -> pd.DataFrame:
    """HR@k and NDCG@k of every user.

    Args:
        ranks: 1-based rank of each user's target.
        ks: Cutoffs.

    Returns:
        One row per user, sorted by the index `user_id` so that results do not depend on the order in which users
        finished; columns `HR@5`, `NDCG@5`, `HR@10`, ... (float, 0 to 1).

    Raises:
        InputError: naming the user whose rank is not an integer of at least 1.

    >>> per_user({"u2": 7, "u1": 3}).to_dict("index")["u1"]
    {'HR@5': 1.0, 'NDCG@5': 0.5, 'HR@10': 1.0, 'NDCG@10': 0.5}
    """
    users = sorted(ranks)
    for user in users:
        if not isinstance(ranks[user], int | np.integer) or ranks[user] < 1:
            raise InputError(f"user {user!r}: rank {ranks[user]!r} is not an integer of at least 1")
    values = np.array([ranks[user] for user in users], dtype=np.int64)
    gain = 1.0 / np.log2(values + 1.0)
    columns: dict[str, np.ndarray] = {}
    for k in ks:
        columns[f"HR@{k}"] = (values <= k).astype(float)
        columns[f"NDCG@{k}"] = np.where(values <= k, gain, 0.0)
    return pd.DataFrame(columns, index=pd.Index(users, name="user_id", dtype=object))


def reciprocal_ranks(ranks: Mapping[str, int], ks: Sequence[int]) -> pd.DataFrame:
    """MRR@k and MAP@k of every user, equal by definition (`reciprocal_rank`); rows and index as of `per_user`.

    >>> reciprocal_ranks({"u": 4}, [3, 5]).to_dict("records")
    [{'MRR@3': 0.0, 'MAP@3': 0.0, 'MRR@5': 0.25, 'MAP@5': 0.25}]
    """
    users = sorted(ranks)
    columns: dict[str, list[float]] = {}
    for k in ks:
        columns[f"MRR@{k}"] = columns[f"MAP@{k}"] = [reciprocal_rank(ranks[user], k) for user in users]
    return pd.DataFrame(columns, index=pd.Index(users, name="user_id", dtype=object))


def summarize(frame: pd.DataFrame, negatives: int) -> dict[str, Estimate]:
    """Mean and interval of every metric; names contain the list size, because it decides the level of a metric.

    Args:
        frame: Result of `per_user`, one row per scored user.
        negatives: Sampled negatives per user; the list has one more.

    Raises:
        InputError: if no user was scored.

    >>> list(summarize(per_user({"u1": 3, "u2": 7}), negatives=29))
    ['HR@5/30', 'NDCG@5/30', 'HR@10/30', 'NDCG@10/30']
    """
    return {_sized(name, negatives): bootstrap_mean(frame[name].to_numpy(), seed=0) for name in frame.columns}


def _sized(metric: str, negatives: int) -> str:
    return f"{metric}/{negatives + 1}"


class Bounds(BaseModel):
    """Bounds of a mean over resolved and unresolved users.

    Attributes:
        low: Mean if every unresolved user is a miss.
        high: Mean if every unresolved user has the target at rank 1.
        resolved: Number of scored users.
        unresolved: Number of users without a result.
    """

    model_config = ConfigDict(frozen=True)

    low: float
    high: float
    resolved: int = Field(ge=0)
    unresolved: int = Field(ge=0)


def bounds(frame: pd.DataFrame, unresolved: int, negatives: int) -> dict[str, Bounds]:
    """Worst and best case of every metric over resolved and unresolved users together.

    A failed call is never counted as a miss; it widens these bounds instead. They do not include the sampling error of
    `summarize`.

    Args:
        frame: Result of `per_user`, possibly empty.
        unresolved: Number of users without a result.
        negatives: Sampled negatives per user, for the names.

    Raises:
        InputError: if there are no users, or `unresolved` is negative.

    >>> bounds(per_user({"u1": 3, "u2": 7, "u3": 1}), unresolved=1, negatives=29)["HR@5/30"]
    Bounds(low=0.5, high=0.75, resolved=3, unresolved=1)
    """
    if unresolved < 0 or len(frame) + unresolved == 0:
        raise InputError(f"no bounds for {len(frame)} resolved and {unresolved} unresolved users")
    total = len(frame) + unresolved
    out = {}
    for name in frame.columns:
        total_gain = float(frame[name].sum())
        out[_sized(name, negatives)] = Bounds(
            low=total_gain / total, high=(total_gain + unresolved) / total, resolved=len(frame), unresolved=unresolved
        )
    return out


def chance(list_size: int) -> dict[str, float]:
    """Expected metrics of a random order of the list.

    Args:
        list_size: Candidates per user, the target included; at least 1.

    >>> {name: round(value, 4) for name, value in chance(30).items()}
    {'HR@5': 0.1667, 'NDCG@5': 0.0983, 'HR@10': 0.3333, 'NDCG@10': 0.1515}
    """
    if list_size < 1:
        raise InputError(f"list size {list_size}: a list has at least the positive")
    ranks = range(1, list_size + 1)
    out = {}
    for k in CUTOFFS:
        out[f"HR@{k}"] = sum(hit(rank, k) for rank in ranks) / list_size
        out[f"NDCG@{k}"] = sum(ndcg(rank, k) for rank in ranks) / list_size
    return out
