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
from optimize.feedback import Outcome, outcome_of
from optimize.likelihood import ListScores
from programs.gate import GateSignals
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
        tokens_in: Their prompt tokens.
        ranks: Rank of the target at each fusion weight of `optimize.fusion_fit.TRIED_WEIGHTS`; empty if unknown.
        lists: Standard scores by MAR and by the prior; None if unknown, or if no weight changes the target's place.
        usd: Their price, or None if unknown.
        signals: What a gate may look at; None if unknown.
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
    tokens_in: int = 0
    usd: float | None = None
    ranks: tuple[int, ...] = Field(default=(), exclude_if=lambda ranks: not ranks)
    lists: ListScores | None = Field(default=None, exclude_if=lambda lists: lists is None)
    signals: GateSignals | None = Field(default=None, exclude_if=lambda signals: signals is None)


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
        return score_of_ranks(
            case,
            rank,
            mar_rank,
            self.weights,
            consistency=consistency(own, self.similarity) if own else None,
            resemblance=resemblance([own, others], self.similarity) if own and others else None,
            coherence=coherence,
            unreadable=ranking.status is Status.UNPARSABLE,
        )

    def score_prediction(self, case: Case, prediction: dspy.Prediction) -> UserScore:
        """Score a prediction of `ScoredProgram`, with the cost of its ranking."""
        score = self.score(case, prediction.ranking, prediction.own, prediction.others, prediction.expected)
        spent = prediction.spent
        cost = {
            "calls": spent.calls,
            "tokens": spent.tokens_in + spent.tokens_out,
            "tokens_in": spent.tokens_in,
            "usd": spent.usd,
        }
        fused = {
            "ranks": tuple(prediction.ranks),
            "lists": prediction.get("lists"),
            "signals": prediction.get("signals"),
        }
        return score.model_copy(update=cost | fused)

    def coherence(self, own: Sequence[Profile], others: Sequence[Profile]) -> float | None:
        """Agreement of different profiles of one user, minus their resemblance to other users' profiles.

        Returns:
            A value in -1..1; None with fewer than two own profiles or no others.
        """
        if len(own) < 2 or not others:
            return None
        return agreement(own, self.similarity) - resemblance([own, others], self.similarity)

    def accepts(self, case: Case, ranking: Ranking, mar: Sequence[float | None]) -> bool:
        """Whether answers may become demos: the model itself put the target among the first 5.

        Ties count against the target, because luck breaks them. Equal scores for all say nothing, and neither does an
        answer in which most labels name no candidate.

        Args:
            mar: MAR's own scores, None for a candidate that it did not name or rate.
        """
        if ranking.status is not Status.OK or case.target is None:
            return False
        own, given = mar[case.candidates.index(case.target)], [score for score in mar if score is not None]
        if own is None or ranking.dropped > len(given):
            return False
        says_something = len(given) == 1 or min(given) < max(given)
        return says_something and sum(score >= own for score in given) <= HIT_AT

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
        if trace is not None and pred_name is None:
            return self.accepts(gold.case, pred.ranking, pred.mar)
        score = self.score_prediction(gold.case, pred)
        parts = {"ndcg": score.ndcg, "mar": score.mar, "hit": score.hit}
        feedback = self.outcome(gold.case, pred, score).text
        return dspy.Prediction(score=score.score, feedback=feedback, objective_scores=parts)

    def outcome(self, case: Case, prediction: dspy.Prediction, score: UserScore | None = None) -> Outcome:
        """What came of a program for one user, for a reflective optimizer."""
        score = score or self.score_prediction(case, prediction)
        ranking = prediction.ranking
        return outcome_of(case, ranking, score.rank, score.mar_rank, score.coherence, prediction.mar, prediction.shown)


def score_of_ranks(case: Case, rank: int, mar_rank: int, weights: ObjectiveWeights, **profiles: Any) -> UserScore:
    """Score of a user by the ranks of the target.

    Args:
        rank, mar_rank: In the fused order and by MAR alone, from 1.
        profiles: Fields of `UserScore` that ranks do not decide.
    """
    candidates = len(case.candidates)
    found = UserScore(
        user_id=case.user_id,
        score=0.0,
        rank=rank,
        mar_rank=mar_rank,
        ndcg=ndcg(rank, candidates),
        mar=ndcg(mar_rank, candidates),
        hit=hit(rank, HIT_AT),
        **profiles,
    )
    return found.model_copy(update={"score": weighted_score(found, weights, rank)})


def weighted_score(score: UserScore, weights: ObjectiveWeights, rank: int) -> float:
    """The weighted mean of a user's known parts, with the target at `rank` of the final order."""
    parts = {"ndcg": ndcg(rank, rank), "mar": score.mar, "hit": hit(rank, HIT_AT), "coherence": score.coherence}
    of = weights.model_dump()
    known = {name: value for name, value in parts.items() if value is not None}
    total = sum(of[name] for name in known)
    return sum(of[name] * value for name, value in known.items()) / total if total else 0.0


def at_rank(score: UserScore, weights: ObjectiveWeights, rank: int) -> UserScore:
    """A user's score with the target at another `rank` of the final order."""
    fused = {"rank": rank, "ndcg": ndcg(rank, rank), "hit": hit(rank, HIT_AT)}
    return score.model_copy(update={**fused, "score": weighted_score(score, weights, rank)})


def readable(scores: Sequence[UserScore]) -> bool:
    """Whether enough users have a readable answer for the scores to be about the program, and not about the prior."""
    return is_readable(sum(score.unreadable for score in scores), len(scores))


def _order_of(case: Case, ranking: Ranking, component: str) -> tuple[str, ...]:
    scores = ranking.scores[component]
    return order_by_score(case.candidates, scores, tie_seed=seed_of("ties", case.user_id))
