"""Log-likelihood of targets under fused scores: what a fusion weight is fitted by.

NDCG of some hundred users jumps from one weight to the next. The log-likelihood is smooth and uses every list, also
those where the target's rank stays the same (a conditional logit model, McFadden, 1974).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator
from scipy.optimize import minimize_scalar

from programs.fusion import head_scores, mixed, scores_to_fuse
from programs.gate import Deviations
from signatures.rows import Case, seed_of

LARGEST_SCALE = 10.0
"""A scale of 10 makes a candidate that is one standard deviation ahead 22,000 times as likely."""


class ListScores(BaseModel):
    """Standard scores of one list: of the candidates that MAR was asked about.

    Attributes:
        mar, prior: One for each candidate.
        target: Index of the target in both.
        deviations: Standard deviations of MAR's scores and of the prior's, which they were divided by; None in older
            compiles.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mar: tuple[float, ...] = Field(min_length=1)
    prior: tuple[float, ...]
    target: int = Field(ge=0)
    deviations: Deviations | None = Field(default=None, exclude_if=lambda two: two is None)

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if len(self.prior) != len(self.mar) or self.target >= len(self.mar):
            raise ValueError("the scores of the prior and of MAR, and the target, belong to different lists")
        return self

    @classmethod
    def of(cls, case: Case, mar: Sequence[float | None], prior: Sequence[float], head: int | None) -> ListScores | None:
        """The scores that are fused.

        Args:
            mar: MAR's own scores of the candidates, None where it gave none.
            prior: The prior's.
            head: See `Fusion`.

        Returns:
            None where no weight changes the target's place: it is outside the head, or MAR gave no score.
        """
        own = np.array([np.nan if score is None else score for score in mar], dtype=float)
        ties = seed_of("ties", case.user_id)
        shown, known, base = scores_to_fuse(own, np.asarray(prior, dtype=float), head, ties)
        candidates = [case.candidates[place] for place in shown.tolist()]
        if case.target not in candidates or np.isnan(own[shown]).all():
            return None
        raw = head_scores(own, shown), np.asarray(prior, dtype=float)[shown]
        return cls(
            mar=known.tolist(),
            prior=base.tolist(),
            target=candidates.index(case.target),
            deviations=Deviations(mar=float(raw[0].std()), prior=float(raw[1].std())),
        )

    def over(self, common: Deviations) -> ListScores:
        """The same list with its scores divided by the deviations of all lists, in place of its own.

        Raises:
            ValueError: if these are not known.
        """
        if self.deviations is None:
            raise ValueError("the deviations of this list are not known")
        mar, prior = self.deviations.mar / common.mar, self.deviations.prior / common.prior
        return self.model_copy(
            update={
                "mar": tuple(score * mar for score in self.mar),
                "prior": tuple(score * prior for score in self.prior),
            }
        )

    def rank(self, weight: float) -> int:
        """Rank of the target by the fused scores, from 1; the target is the last of its ties."""
        fused = mixed(np.array(self.mar), np.array(self.prior), weight)
        return int((fused >= fused[self.target]).sum())


def mean_deviations(lists: Sequence[ListScores | None]) -> Deviations | None:
    """The mean deviations of lists; None where they are not known, or the scores of one kind are all alike."""
    known = [one for one in lists if one is not None]
    found = [one.deviations for one in known if one.deviations is not None]
    if not found or len(found) < len(known):
        return None
    mean = Deviations(
        mar=float(np.mean([one.mar for one in found])), prior=float(np.mean([one.prior for one in found]))
    )
    return mean if mean.can_divide else None


class Likelihood:
    """The targets' log-likelihood, with a softmax over fused scores.

    Args:
        lists: At least one.
    """

    def __init__(self, lists: Sequence[ListScores]) -> None:
        width = max(len(one.mar) for one in lists)
        self._mar, self._prior = np.zeros((2, len(lists), width))
        self._there = np.zeros((len(lists), width), dtype=bool)
        for row, one in enumerate(lists):
            self._mar[row, : len(one.mar)], self._prior[row, : len(one.mar)] = one.mar, one.prior
            self._there[row, : len(one.mar)] = True
        self._targets = np.array([one.target for one in lists])

    def at(self, weight: float, scale: float) -> NDArray[np.float64]:
        """Log-likelihood of each target in nats, shape (lists,).

        Args:
            weight: MAR's share.
            scale: Of the fused scores before the softmax; 0 makes all candidates equally likely.
        """
        fused = np.where(self._there, scale * mixed(self._mar, self._prior, weight), -np.inf)
        fused -= fused.max(axis=1, keepdims=True)
        own = fused[np.arange(len(fused)), self._targets]
        found: NDArray[np.float64] = own - np.log(np.exp(fused).sum(axis=1))
        return found

    def scale(self, weight: float, rows: NDArray[np.bool_]) -> float:
        """The scale at which the targets of some lists are likeliest with a weight."""

        def loss(scale: float) -> float:
            return -float(self.at(weight, scale)[rows].mean())

        found = minimize_scalar(loss, bounds=(0.0, LARGEST_SCALE), method="bounded")
        # The minimiser never reaches a bound, and near 0 weights that are equal would differ.
        return float(found.x) if found.fun < loss(0.0) else 0.0

    def likeliest(self, tried: Sequence[float], rows: NDArray[np.bool_]) -> tuple[float, float]:
        """Weight and scale at which the targets of some lists are likeliest; among equals the smallest weight."""
        scales = [self.scale(weight, rows) for weight in tried]
        means = [float(self.at(weight, scale)[rows].mean()) for weight, scale in zip(tried, scales, strict=True)]
        best = next(place for place, mean in enumerate(means) if mean >= max(means) - 1e-9)
        return tried[best], scales[best]


def log_likelihoods(lists: Sequence[ListScores | None], tried: Sequence[float]) -> NDArray[np.float64]:
    """Log-likelihood of each target at each weight, in nats, shape (lists, weights); 0 where no weight changes it.

    Each weight has the scale at which all targets are likeliest.
    """
    known = [one for one in lists if one is not None]
    values = np.zeros((len(lists), len(tried)))
    if known:
        found, every = Likelihood(known), np.ones(len(known), dtype=bool)
        columns = [found.at(weight, found.scale(weight, every)) for weight in tried]
        values[[one is not None for one in lists]] = np.stack(columns, axis=1)
    return values
