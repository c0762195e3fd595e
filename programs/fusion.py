"""Fusion of MAR's scores with the prior's: a weighted sum of standard scores over the prior's first candidates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from programs.gate import Deviations, Gate, GateSignals
from programs.prior.standard_scores import z
from programs.ranker import first_by_score
from programs.runtime.errors import InputError

DEFAULT_WEIGHT = 0.3
_TIES = 1e-9


@dataclass(frozen=True)
class Fusion:
    """Fusion of MAR's scores with the prior's.

    Attributes:
        weight: Share of MAR in 0..1: fused = weight * z(MAR) + (1 - weight) * z(prior), z over the candidates.
        head: MAR scores only the prior's first `head` candidates, the others stay below them; None: all.
        gate: Gives every user a weight of their own, in place of `weight`, and perhaps the deviations.
        deviations: See `Gate`.
    """

    weight: float = DEFAULT_WEIGHT
    head: int | None = None
    gate: Gate | None = None
    deviations: Deviations | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise InputError(f"weight {self.weight:g}: give MAR's share of the fused score, from 0 to 1")
        if self.head is not None and self.head < 1:
            raise InputError(f"head {self.head}: give the number of candidates that MAR ranks, at least 1")

    def of_user(self, signals: GateSignals) -> Fusion:
        """The fusion of one user: with the weight that the gate gives, if there is one."""
        if self.gate is None:
            return self
        return Fusion(self.gate.weight(signals), self.head, deviations=self.gate.deviations)

    def asks(self, signals: GateSignals) -> bool:
        """Whether MAR is asked about a user; all users without a gate."""
        return self.gate is None or self.gate.asks(signals)

    def fuse(self, mar: NDArray[np.float64], prior: NDArray[np.float64], tie_seed: int) -> NDArray[np.float64]:
        """Fuse two vectors of shape (n,). Candidates without a MAR score are NaN in `mar`.

        Inside the head they get MAR's lowest score, so that being left out by the model is no advantage. If MAR scored
        none, the prior alone decides. Outside the head, and among ties of MAR, the prior's order holds; ties of the
        prior there stay ties.

        Args:
            tie_seed: Of the user's `order_by_score`, see `head_of`.
        """
        head, own, base = scores_to_fuse(mar, prior, self.head, tie_seed, self.deviations)
        fused = np.empty(len(prior))
        weight = 0.0 if np.isnan(mar[head]).all() else self.weight
        fused[head] = mixed(own, base, weight)
        if len(head) < len(prior):
            below = np.setdiff1d(np.arange(len(prior)), head)
            falling = -prior[below]
            fused[below] = fused[head].min() - 1 - np.searchsorted(np.sort(falling), falling)
        return fused


def scores_to_fuse(
    mar: NDArray[np.float64],
    prior: NDArray[np.float64],
    head: int | None,
    tie_seed: int,
    deviations: Deviations | None = None,
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Indices of the head's candidates, and their standard scores by MAR and by the prior; see `Fusion.fuse`."""
    shown = head_of(prior, head, tie_seed)
    scored, base = head_scores(mar, shown), prior[shown]
    if deviations is None:
        return shown, z(scored), z(base)
    return shown, (scored - scored.mean()) / deviations.mar, (base - base.mean()) / deviations.prior


def head_scores(mar: NDArray[np.float64], shown: NDArray[np.intp]) -> NDArray[np.float64]:
    """MAR's scores of the head's candidates; those without one (NaN) have its lowest."""
    return np.where(np.isnan(mar[shown]), lowest(mar[shown]), mar[shown])


def mixed(mar: NDArray[np.float64], prior: NDArray[np.float64], weight: float) -> NDArray[np.float64]:
    """The weighted sum of standard scores of any shape; among ties of MAR the prior's order holds."""
    both: NDArray[np.float64] = weight * mar + (1 - weight + _TIES) * prior
    return both


def head_of(prior: NDArray[np.float64], head: int | None, tie_seed: int) -> NDArray[np.intp]:
    """Indices of the prior's first `head` candidates, in candidate order; all of them for None.

    Args:
        tie_seed: Decides ties, so that the head is the beginning of what `order_by_score` makes of the prior.

    >>> head_of(np.array([0.1, 0.9, 0.5]), 2, tie_seed=0).tolist()
    [1, 2]
    """
    if head is None or head >= len(prior):
        return np.arange(len(prior))
    return np.sort(first_by_score(prior, head, tie_seed))


def lowest(values: NDArray[np.float64]) -> float:
    """The lowest score of MAR; 0 where it gave none (NaN)."""
    known = values[~np.isnan(values)]
    return float(known.min()) if len(known) else 0.0
