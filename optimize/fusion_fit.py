"""Fit of the fusion weight on recorded scores, cross-validated over users; asks no model.

Every `UserScore` holds the target's rank at all `TRIED_WEIGHTS`, from the same answers. `gate_fit` fits on the same
ranks what gives every user a weight of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from evaluate.stats.metrics import rank_of
from optimize.objective import ObjectiveWeights, UserScore, weighted_score
from programs.gate import Gate
from programs.program import Fusion
from programs.ranker import order_by_score
from signatures.rows import Case, seed_of

TRIED_WEIGHTS = tuple(step / 20 for step in range(21))
"""Fusion weights to choose from: 0, .05, ..., 1."""

_FOLDS = 5


class FittedWeight(BaseModel):
    """A fusion weight fitted on users.

    Attributes:
        weight: The weight to use.
        own, fitted: Mean score with the weight before, and cross-validated with fitted ones: every user is scored with
            the weight that is best for the users of the other folds.
        users: Number of users.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    weight: float
    own: float
    fitted: float
    users: int


def ranks_by_weight(
    case: Case, mar: Sequence[float | None], prior: Sequence[float], head: int | None
) -> tuple[int, ...]:
    """The target's rank at each of `TRIED_WEIGHTS`.

    Args:
        mar: MAR's own scores of the candidates, None where it gave none.
        prior: The prior's.
        head: See `Fusion`.
    """
    assert case.target is not None  # noqa: S101 - scored before
    own = np.array([np.nan if score is None else score for score in mar], dtype=float)
    base, ties = np.asarray(prior, dtype=float), seed_of("ties", case.user_id)
    orders = (
        order_by_score(case.candidates, Fusion(weight, head).fuse(own, base).tolist(), tie_seed=ties)
        for weight in TRIED_WEIGHTS
    )
    return tuple(rank_of(order, case.target) for order in orders)


def fit_weight(scores: Sequence[UserScore], weights: ObjectiveWeights, own: float) -> FittedWeight | None:
    """Fit the weight; it stays as it is unless fitted ones gain more than one standard error on users of other folds.

    Args:
        scores: Of one program; a user may have several (other draws of labels), which stay in one fold.
        weights: The objective.
        own: The weight that the program has.

    Returns:
        None if there are fewer than five users, or scores without ranks, as those of older compiles are.
    """
    users = list(dict.fromkeys(score.user_id for score in scores))
    if len(users) < _FOLDS or any(len(score.ranks) != len(TRIED_WEIGHTS) for score in scores):
        return None
    table = np.array([[weighted_score(score, weights, rank) for rank in score.ranks] for score in scores])
    fold = np.array([users.index(score.user_id) % _FOLDS for score in scores])
    chosen = np.empty(len(scores))
    for number in range(_FOLDS):
        inside = fold == number
        chosen[inside] = table[inside, _best(table[~inside], own)]
    before = np.array([score.score for score in scores])
    of_user = np.array([users.index(score.user_id) for score in scores])
    gains = np.bincount(of_user, chosen - before) / np.bincount(of_user)
    error = float(gains.std(ddof=1)) / len(users) ** 0.5
    weight = TRIED_WEIGHTS[_best(table, own)] if gains.mean() > error else own
    return FittedWeight(weight=weight, own=float(before.mean()), fitted=float(chosen.mean()), users=len(users))


def at_weight(score: UserScore, weights: ObjectiveWeights, weight: float, gate: Gate | None = None) -> UserScore | None:
    """A user's score with another of `TRIED_WEIGHTS`, or the one that a gate gives; None if its ranks are not known."""
    if gate is not None and score.signals is not None:
        weight = gate.weight(score.signals)
    if weight not in TRIED_WEIGHTS or len(score.ranks) != len(TRIED_WEIGHTS):
        return None
    rank = score.ranks[TRIED_WEIGHTS.index(weight)]
    return score.model_copy(update={"score": weighted_score(score, weights, rank)})


def all_at_weight(
    scores: Sequence[UserScore], weights: ObjectiveWeights, weight: float, gate: Gate | None = None
) -> list[UserScore] | None:
    """The scores of all users, see `at_weight`; None if one is not known."""
    found = [at_weight(score, weights, weight, gate) for score in scores]
    known = [score for score in found if score is not None]
    return known if len(known) == len(found) else None


def _best(table: NDArray[np.float64], own: float) -> int:
    """Index of the best weight; among equals the one nearest to `own`."""
    means = table.mean(axis=0)
    near = [index for index in range(len(TRIED_WEIGHTS)) if means[index] >= means.max() - 1e-12]
    return min(near, key=lambda index: abs(TRIED_WEIGHTS[index] - own))
