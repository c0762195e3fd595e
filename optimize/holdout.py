"""Held-out check: the winner of a search against the uncompiled program and the prior, on dev users it has not seen."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field
from scipy import stats

from evaluate.stats.intervals import Difference, Estimate, bootstrap_mean, paired_difference
from evaluate.stats.metrics import hit, ndcg
from optimize.objective import HIT_AT, UserScore
from programs.runtime.errors import InputError
from signatures.rows import Case

_ALPHA = 0.05

Judgement = Literal["better", "not clearly better", "not better"]


class AgainstPrior(BaseModel):
    """The winner, fused with its weight or gate, minus the prior alone, which asks no model; paired by user.

    Attributes:
        judgement: By NDCG, see `HoldoutVerdict`.
        ndcg: Difference in NDCG over the whole list.
        hit: Difference in HR@5.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judgement: Judgement
    ndcg: Difference
    hit: Difference


class HoldoutVerdict(BaseModel):
    """Result of the held-out check.

    Attributes:
        judgement: `better` if the interval of the difference in score lies above 0 and a one-sided Wilcoxon test is
            significant at 5% (for few users the interval alone is too narrow); `not clearly better` if the mean
            difference is above 0; else `not better`.
        against_prior: The winner against the prior alone on the same users: better than the uncompiled program may
            still be worse than no model. None in artifacts from before it was computed.
        before, after: Mean of each part of the objective (see `UserScore`), for the uncompiled program and the winner.
        difference: Paired, after minus before.
        prompts: Paired difference in score between the winner and the uncompiled program with the winner's fusion
            weight: what the prompts gained. None if the weight is the same.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    judgement: Judgement
    before: dict[str, Estimate]
    after: dict[str, Estimate]
    difference: dict[str, Difference]
    prompts: Difference | None = Field(default=None, exclude_if=lambda gain: gain is None)
    against_prior: AgainstPrior | None = Field(default=None, exclude_if=lambda found: found is None)


HOLDOUT_PARTS = ("score", "ndcg", "mar", "hit", "consistency", "resemblance", "coherence")


def split_dev(cases: Sequence[Case], held_out: float) -> tuple[list[Case], list[Case]]:
    """Split the cases into those of the search and the held-out ones, which are the last.

    Raises:
        InputError: if one of the two parts would be empty.
    """
    n = math.ceil(held_out * len(cases))
    if not 0 < n < len(cases):
        raise InputError(f"{len(cases)} dev users cannot be split with {held_out:g} of them held out; give more users")
    return list(cases[:-n]), list(cases[-n:])


def compare_on_holdout(
    before: Sequence[UserScore], after: Sequence[UserScore], weighed: Sequence[UserScore] | None = None
) -> HoldoutVerdict:
    """Compare the scores of the same users under both programs.

    Args:
        weighed: Scores of the uncompiled program with the winner's fusion weight, where that is another one.
    """
    first, second = estimates(before), estimates(after)
    difference = {
        part: paired_difference(_values(after, part), _values(before, part), seed=0) for part in first if part in second
    }
    judgement = _judged(_values(after, "score"), _values(before, "score"))
    prompts = None
    if weighed is not None:
        prompts = paired_difference(_values(after, "score"), _values(weighed, "score"), seed=0)
    return HoldoutVerdict(
        judgement=judgement,
        before=first,
        after=second,
        difference=difference,
        prompts=prompts,
        against_prior=compare_with_prior(after),
    )


def compare_with_prior(scores: Sequence[UserScore]) -> AgainstPrior | None:
    """A program against the prior alone, whose ranks are those at fusion weight 0; None where they are not known."""
    if not scores or not all(score.ranks for score in scores):
        return None
    prior = {score.user_id: score.ranks[0] for score in scores}
    gains, hits = _values(scores, "ndcg"), _values(scores, "hit")
    prior_gains = {user: ndcg(rank, rank) for user, rank in prior.items()}
    prior_hits = {user: hit(rank, HIT_AT) for user, rank in prior.items()}
    return AgainstPrior(
        judgement=_judged(gains, prior_gains),
        ndcg=paired_difference(gains, prior_gains, seed=0),
        hit=paired_difference(hits, prior_hits, seed=0),
    )


def _judged(after: Mapping[str, float], before: Mapping[str, float]) -> Judgement:
    gain = paired_difference(after, before, seed=0)
    if gain.mean <= 0:
        return "not better"
    gains = [after[user] - value for user, value in before.items()]
    certain = gain.low > 0 and stats.wilcoxon(gains, alternative="greater").pvalue < _ALPHA
    return "better" if certain else "not clearly better"


def estimates(scores: Sequence[UserScore]) -> dict[str, Estimate]:
    """Mean and interval of every part with values."""
    by_part = {part: _values(scores, part) for part in HOLDOUT_PARTS}
    return {part: bootstrap_mean(list(values.values()), seed=0) for part, values in by_part.items() if values}


def _values(scores: Sequence[UserScore], part: str) -> dict[str, float]:
    return {s.user_id: value for s in scores if (value := getattr(s, part)) is not None}
