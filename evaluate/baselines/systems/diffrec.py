"""DiffRec (Wang et al., SIGIR 2023): denoises the row of a user's items, which weigh more the newer they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

from evaluate.baselines.baseline import TrainingData, rank_by_rows
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.diffrec_settings import DiffRecSettings
from evaluate.baselines.networks.interactions import Interactions, distinct_rows
from signatures.rows import Case, Ranking

if TYPE_CHECKING:
    from evaluate.baselines.networks.diffrec_network import DiffRecNetwork


class DiffRec(DiffRecSettings):
    """T-DiffRec: a diffusion of a few steps with little noise.

    Memory: 32 bytes for each item and hidden unit (weights, gradients, Adam), and a few arrays of batch by items; never
    one of users by items.
    """

    name: ClassVar[str] = "diffrec"

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(oldest=1.0), cls(oldest=0.1), cls(hidden=600), cls(scale=1e-4))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> DiffRecRanker:
        """Train; see `Baseline.fit`. A repeated purchase counts once, where it was made last."""
        self.require_torch()
        from evaluate.baselines.networks.diffrec_network import train_diffrec

        data = Interactions.of(training.histories)
        network = train_diffrec(data.histories, len(data.items), self, self.plan(training, seed, fitting))
        return DiffRecRanker(data.items, network)


class DiffRecRanker:
    """Ranks by the denoised row of the case's history; the user id is ignored.

    A history without a known item is a row of zeros, whose denoised values follow popularity. For candidates without
    users see `unknown_below`.

    Args:
        rows: Row by item id.
    """

    def __init__(self, rows: dict[str, int], network: DiffRecNetwork) -> None:
        self.rows = rows
        self.network = network

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        history = distinct_rows(case.item_ids, self.rows)
        return rank_by_rows(case, self.rows, lambda rows: self.network.scores(history, rows), DiffRec.name)
