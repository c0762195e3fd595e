"""Fit of the fusion weight on recorded scores, cross-validated over users; asks no model.

Every `UserScore` holds the scores that are fused, and the target's rank at all `TRIED_WEIGHTS`, from the same answers.
`gate_fit` fits on the same scores what gives every user a weight of their own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict

from evaluate.stats.metrics import rank_of
from optimize.likelihood import Likelihood
from optimize.objective import ObjectiveWeights, UserScore, at_rank, weighted_score
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
            the weight that is likeliest for the users of the other folds.
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
        order_by_score(case.candidates, Fusion(weight, head).fuse(own, base, ties).tolist(), tie_seed=ties)
        for weight in TRIED_WEIGHTS
    )
    return tuple(rank_of(order, case.target) for order in orders)


def fit_weight(scores: Sequence[UserScore], weights: ObjectiveWeights, own: float) -> FittedWeight | None:
    """Fit the weight at which the targets are likeliest.

    It stays as it is unless fitted weights make the targets of other folds likelier by more than one standard error.

    Args:
        scores: Of one program; a user may have several (other draws of labels), which stay in one fold.
        weights: The objective.
        own: The weight that the program has.

    Returns:
        None if fewer than five users have a list that the weight changes, all of them are in one fold, or scores are of
        an older compile.
    """
    users = list(dict.fromkeys(score.user_id for score in scores))
    if any(len(score.ranks) != len(TRIED_WEIGHTS) for score in scores):
        return None
    known = np.array([score.lists is not None for score in scores])
    of_user = np.array([users.index(score.user_id) for score in scores])
    if len(set(of_user[known].tolist())) < _FOLDS or len(set((of_user[known] % _FOLDS).tolist())) < 2:
        return None
    found = Likelihood([score.lists for score in scores if score.lists is not None])
    table = np.array([[weighted_score(score, weights, rank) for rank in score.ranks] for score in scores])
    before = np.array([score.score for score in scores])
    chosen, gains = np.empty(len(scores)), np.zeros(len(scores))
    for number in range(_FOLDS):
        inside = of_user % _FOLDS == number
        others = ~inside[known]
        weight, scale = found.likeliest(TRIED_WEIGHTS, others)
        chosen[inside] = table[inside, TRIED_WEIGHTS.index(weight)]
        likelier = found.at(weight, scale) - found.at(own, found.scale(own, others))
        gains[known & inside] = likelier[~others]
    each = np.bincount(of_user, gains) / np.bincount(of_user)
    clear = each.mean() > float(each.std(ddof=1)) / len(users) ** 0.5
    weight = found.likeliest(TRIED_WEIGHTS, np.ones(known.sum(), dtype=bool))[0] if clear else own
    return FittedWeight(weight=weight, own=float(before.mean()), fitted=float(chosen.mean()), users=len(users))


def at_weight(score: UserScore, weights: ObjectiveWeights, weight: float, gate: Gate | None = None) -> UserScore | None:
    """A user's score with another of `TRIED_WEIGHTS`, or the one that a gate gives; None if its ranks are not known."""
    if gate is not None and score.signals is not None:
        weight = gate.weight(score.signals)
        if gate.deviations is not None and score.lists is not None:
            if score.lists.deviations is None:
                return None
            return at_rank(score, weights, score.lists.over(gate.deviations).rank(weight))
    if weight not in TRIED_WEIGHTS or len(score.ranks) != len(TRIED_WEIGHTS):
        return None
    return at_rank(score, weights, score.ranks[TRIED_WEIGHTS.index(weight)])


def all_at_weight(
    scores: Sequence[UserScore], weights: ObjectiveWeights, weight: float, gate: Gate | None = None
) -> list[UserScore] | None:
    """The scores of all users, see `at_weight`; None if one is not known."""
    found = [at_weight(score, weights, weight, gate) for score in scores]
    known = [score for score in found if score is not None]
    return known if len(known) == len(found) else None
