"""What compiling maximises: one score per shopper from ranking quality and from profiles that hold together.

The same `Objective` is the metric of DSPy's optimizers, the value of a trial, and the text a reflective optimizer
reads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import dspy
from pydantic import BaseModel, ConfigDict, Field, model_validator

from evaluate.stats.metrics import hit, ndcg, rank_of
from optimize.consistency import Similarity, agreement, consistency, resemblance, schema_cooccurrence
from programs.ranker import order_by_score
from signatures.rows import Case, Ranking, seed_of
from signatures.types import Profile

HIT_AT = 5


class ObjectiveWeights(BaseModel):
    """Shares of the parts in a shopper's score; normalised to sum 1.

    Attributes:
        ndcg: NDCG over the whole list of the order the shopper gets (prior and MAR fused). Smooth in the rank.
        mar: NDCG over the whole list of MAR's scores alone: what the prompts themselves contribute.
        hit: HR@5 of the order the shopper gets, the paper's; coarse, and reported whatever its weight.
        coherence: Agreement of the shopper's profiles (eq. 5 without its p = q terms) minus their resemblance to
            strangers' profiles. Constant, generic or empty profiles have none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    """One shopper under one program.

    Attributes:
        score: The weighted mean of the parts there are; at most 1.
        rank: 1-based rank of the target in the order the shopper gets.
        mar_rank: The same by MAR's scores alone.
        ndcg, mar: NDCG over the whole list at these ranks, 0..1.
        hit: 1.0 if `rank` is at most 5, else 0.0.
        consistency: Eq. 5 over the shopper's profiles, or None where they were not asked for.
        resemblance: Mean similarity of the shopper's profiles to strangers' profiles, or None where there are none.
        coherence: See `ObjectiveWeights`; -1..1, 0 for a program that makes no profiles, or None for a shopper with
            fewer than two interactions or without strangers.
        calls: Questions to MOPE and MAR for this shopper's ranking, stored answers counted as if paid.
        tokens: Their prompt and answer tokens.
        usd: Their price, or None without a known one.
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
    calls: int = 0
    tokens: int = 0
    usd: float | None = None


@dataclass(frozen=True)
class Objective:
    """Scores what a program did for a shopper.

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
        strangers: Sequence[Profile] = (),
        expected: int = 0,
    ) -> UserScore:
        """Score one shopper.

        Args:
            case: With its target.
            ranking: What the program made of it.
            own: The shopper's profiles, one per interaction.
            strangers: Profiles the same program gives other shoppers.
            expected: Interactions that a program with MOPE would have profiled. One without must not win by having
                no incoherent profiles.

        Raises:
            ValueError: if the case has no target.
        """
        if case.target is None:
            raise ValueError(f"user {case.user_id!r} has no target to score against")
        rank = rank_of(ranking.order, case.target)
        mar_rank = rank_of(_order_of(case, ranking, "mar"), case.target)
        coherence = self.coherence(own, strangers)
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
            resemblance=resemblance([own, strangers], self.similarity) if own and strangers else None,
            coherence=coherence,
        )

    def judge(self, case: Case, answer: dspy.Prediction) -> UserScore:
        """Score a prediction of `ScoredProgram`, with what the ranking cost."""
        found = self.score(case, answer.ranking, answer.own, answer.strangers, answer.expected)
        spent = answer.spent
        cost = {"calls": spent.calls, "tokens": spent.tokens_in + spent.tokens_out, "usd": spent.usd}
        return found.model_copy(update=cost)

    def coherence(self, own: Sequence[Profile], strangers: Sequence[Profile]) -> float | None:
        """How much different profiles of one shopper agree, minus how much they resemble strangers' profiles.

        Returns:
            A value in -1..1, or None where there is nothing to compare.
        """
        if len(own) < 2 or not strangers:
            return None
        return agreement(own, self.similarity) - resemblance([own, strangers], self.similarity)

    def accepts(self, score: UserScore) -> bool:
        """Whether a run is good enough to show as a demonstration: MAR alone has the target in its first 5."""
        return score.mar_rank <= HIT_AT

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
            A bool where demonstrations are bootstrapped (a trace and no predictor name), else a Prediction with
            `score` and `feedback`.
        """
        scored = self.judge(gold.case, pred)
        if trace is not None and pred_name is None:
            return self.accepts(scored)
        return dspy.Prediction(score=scored.score, feedback=feedback(gold.case, pred.ranking, scored))


def _order_of(case: Case, ranking: Ranking, component: str) -> tuple[str, ...]:
    scores = ranking.scores[component]
    return order_by_score(case.candidates, scores, tie_seed=seed_of("ties", case.user_id))


def feedback(case: Case, ranking: Ranking, scored: UserScore) -> str:
    """What went right or wrong for one shopper, in words for a reflective optimizer."""
    size = len(case.candidates)
    lines = [
        f"The product this shopper chose next is ranked {scored.rank} of {size}; by motivations and traits alone "
        f"{scored.mar_rank} of {size}."
    ]
    if ranking.profile is None:
        lines.append("No profile could be read from the answer." if ranking.error else "No profile was asked for.")
    else:
        wants = "; ".join(f"{m.dimension} ({m.description})" for m in ranking.profile.motivations)
        lines.append(f"The profile stresses: {wants}.")
    traits = {found.item_id: found.render() for found in ranking.traits}
    if case.target in traits:
        lines.append(f"The chosen product's traits speak of: {traits[case.target] or 'nothing usable'}.")
    if scored.mar_rank > 1:
        best = _order_of(case, ranking, "mar")[0]
        if traits.get(best):
            lines.append(f"Put first instead was a product of these traits: {traits[best]}.")
    if scored.coherence is not None and scored.coherence <= 0:
        lines.append(
            "Profiles of this shopper's single purchases resemble strangers' as much as each other: too generic."
        )
    if ranking.unparsable:
        lines.append(f"{ranking.unparsable} answers could not be parsed.")
    return " ".join(lines)
