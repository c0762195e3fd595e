"""Objective of a compile: one score per user from ranking quality and the coherence of profiles.

The same `Objective` is the metric of DSPy's optimizers, the value of a trial, and the feedback for a reflective
optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import dspy
from pydantic import BaseModel, ConfigDict, Field, model_validator

from evaluate.runs.run_metrics import is_readable
from evaluate.stats.metrics import hit, ndcg, rank_of
from optimize.consistency import Similarity, agreement, consistency, resemblance, schema_cooccurrence
from programs.ranker import order_by_score
from signatures.rows import Case, Ranking, Status, seed_of
from signatures.types import Profile

HIT_AT = 5


class ObjectiveWeights(BaseModel):
    """Weights of the parts of a user's score; normalised to sum 1.

    Attributes:
        ndcg: NDCG of the final order (prior and MAR fused), over the whole list.
        mar: NDCG of the order by MAR's scores alone, over the whole list: the contribution of the prompts.
        hit: HR@5 of the final order, the paper's metric; reported even if its weight is 0.
        coherence: Agreement of the user's profiles (eq. 5 without its p = q terms) minus their resemblance to other
            users' profiles. About 0 for constant, generic or empty profiles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    ndcg: float = Field(default=0.4, ge=0)
    mar: float = Field(default=0.3, ge=0)
    hit: float = Field(default=0.1, ge=0)
    coherence: float = Field(default=0.2, ge=0)

    @model_validator(mode="after")
    def _some(self) -> ObjectiveWeights:
        if not self.ndcg + self.mar + self.hit + self.coherence > 0:
            raise ValueError("one of ndcg, mar, hit and coherence needs a weight above 0")
        return self


class UserScore(BaseModel):
    """Scores of one user under one program.

    Attributes:
        score: The weighted mean of the known parts; at most 1.
        rank: 1-based rank of the target in the final order.
        mar_rank: 1-based rank of the target by MAR's scores alone.
        ndcg, mar: NDCG over the whole list at these ranks, 0..1.
        hit: 1.0 if `rank` is at most 5, else 0.0.
        consistency: Eq. 5 over the user's profiles, or None without profiles.
        resemblance: Mean similarity of the user's profiles to other users' profiles, or None without any.
        coherence: See `ObjectiveWeights`; -1..1, 0 for a program without MOPE, or None for a user with fewer than two
            interactions or without other users.
        unreadable: Whether no answer of the models could be read, so that the prior alone ranked.
        calls: Calls of MOPE and MAR for this user's ranking, cache hits counted as paid.
        tokens: Their prompt and answer tokens.
        usd: Their price, or None if unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    user_id: str
    score: float
    rank: int
    mar_rank: int
    ndcg: float
    mar: float
    hit: float
    consistency: float | None = None
    resemblance: float | None = None
    coherence: float | None = None
    unreadable: bool = False
    calls: int = 0
    tokens: int = 0
    usd: float | None = None


@dataclass(frozen=True)
class Objective:
    """Scores the result of a program for a user.

    Attributes:
        similarity: Sim of eq. 5, between profiles.
    """

    weights: ObjectiveWeights = field(default_factory=ObjectiveWeights)
    similarity: Similarity = schema_cooccurrence

    def score(
        self,
        case: Case,
        ranking: Ranking,
        own: Sequence[Profile] = (),
        others: Sequence[Profile] = (),
        expected: int = 0,
    ) -> UserScore:
        """Score one user.

        Args:
            case: With its target.
            ranking: The program's ranking.
            own: The user's profiles, one per interaction.
            others: Profiles of other users by the same program.
            expected: Number of profiles that a program with MOPE makes; if it made none, the coherence is 0, not None.

        Raises:
            ValueError: if the case has no target.
        """
        if case.target is None:
            raise ValueError(f"user {case.user_id!r} has no target to score against")
        rank = rank_of(ranking.order, case.target)
        mar_rank = rank_of(_order_of(case, ranking, "mar"), case.target)
        coherence = self.coherence(own, others)
        if not own and expected >= 2:
            coherence = 0.0
        parts: dict[str, float | None] = {
            "ndcg": ndcg(rank, len(case.candidates)),
            "mar": ndcg(mar_rank, len(case.candidates)),
            "hit": hit(rank, HIT_AT),
            "coherence": coherence,
        }
        weights = self.weights.model_dump()
        known = {name: value for name, value in parts.items() if value is not None}
        total = sum(weights[name] for name in known)
        score = sum(weights[name] * value for name, value in known.items()) / total if total else 0.0
        return UserScore(
            user_id=case.user_id,
            score=score,
            rank=rank,
            mar_rank=mar_rank,
            ndcg=parts["ndcg"] or 0.0,
            mar=parts["mar"] or 0.0,
            hit=parts["hit"] or 0.0,
            consistency=consistency(own, self.similarity) if own else None,
            resemblance=resemblance([own, others], self.similarity) if own and others else None,
            coherence=coherence,
            unreadable=ranking.status is Status.UNPARSABLE,
        )

    def score_prediction(self, case: Case, prediction: dspy.Prediction) -> UserScore:
        """Score a prediction of `ScoredProgram`, with the cost of its ranking."""
        score = self.score(case, prediction.ranking, prediction.own, prediction.others, prediction.expected)
        spent = prediction.spent
        cost = {"calls": spent.calls, "tokens": spent.tokens_in + spent.tokens_out, "usd": spent.usd}
        return score.model_copy(update=cost)

    def coherence(self, own: Sequence[Profile], others: Sequence[Profile]) -> float | None:
        """Agreement of different profiles of one user, minus their resemblance to other users' profiles.

        Returns:
            A value in -1..1; None with fewer than two own profiles or no others.
        """
        if len(own) < 2 or not others:
            return None
        return agreement(own, self.similarity) - resemblance([own, others], self.similarity)

    def accepts(self, case: Case, ranking: Ranking, score: UserScore) -> bool:
        """Whether answers may become demos: they could be read, and MAR alone ranks the target among the first 5.

        A target with MAR's lowest score was not named, or not preferred to any candidate, so its rank is random.
        """
        if ranking.status is not Status.OK or case.target is None or score.mar_rank > HIT_AT:
            return False
        mar = ranking.scores["mar"]
        return mar[case.candidates.index(case.target)] > min(mar)

    def metric(
        self,
        gold: dspy.Example,
        pred: dspy.Prediction,
        trace: Any = None,
        pred_name: str | None = None,
        pred_trace: Any = None,
    ) -> Any:
        """The metric of DSPy's optimizers, for examples with a `case` and predictions of `ScoredProgram`.

        Returns:
            A bool when demos are bootstrapped (a trace and no predictor name), else a Prediction with `score` and
            `feedback`.
        """
        score = self.score_prediction(gold.case, pred)
        if trace is not None and pred_name is None:
            return self.accepts(gold.case, pred.ranking, score)
        return dspy.Prediction(score=score.score, feedback=feedback(gold.case, pred.ranking, score))


def readable(scores: Sequence[UserScore]) -> bool:
    """Whether enough users have a readable answer for the scores to be about the program, and not about the prior."""
    return is_readable(sum(score.unreadable for score in scores), len(scores))


def _order_of(case: Case, ranking: Ranking, component: str) -> tuple[str, ...]:
    scores = ranking.scores[component]
    return order_by_score(case.candidates, scores, tie_seed=seed_of("ties", case.user_id))


def feedback(case: Case, ranking: Ranking, score: UserScore) -> str:
    """The result for one user in words, for a reflective optimizer; part of its prompt."""
    size = len(case.candidates)
    lines = [
        f"The product this shopper chose next is ranked {score.rank} of {size}; by motivations and traits alone "
        f"{score.mar_rank} of {size}."
    ]
    if ranking.profile is None:
        lines.append("No profile could be read from the answer." if ranking.error else "No profile was asked for.")
    else:
        wants = "; ".join(f"{m.dimension} ({m.description})" for m in ranking.profile.motivations)
        lines.append(f"The profile stresses: {wants}.")
    traits = {own.item_id: own.render() for own in ranking.traits}
    if case.target in traits:
        lines.append(f"The chosen product's traits speak of: {traits[case.target] or 'nothing usable'}.")
    if score.mar_rank > 1:
        best = _order_of(case, ranking, "mar")[0]
        if traits.get(best):
            lines.append(f"Put first instead was a product of these traits: {traits[best]}.")
    if score.coherence is not None and score.coherence <= 0:
        lines.append(
            "Profiles of this shopper's single purchases resemble strangers' as much as each other: too generic."
        )
    if ranking.unparsable:
        lines.append(f"{ranking.unparsable} answers could not be parsed.")
    return " ".join(lines)
