"""SASRec (Kang and McAuley, ICDM 2018): a Transformer that predicts every item from the items before it."""

from __future__ import annotations

from typing import ClassVar, Self

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.sequence_ranker import SequenceRanker, fit_sequences
from evaluate.baselines.networks.sequence_settings import SASRecSettings


class SASRec(SASRecSettings):
    """SASRec: causal attention, the next item at every position."""

    name: ClassVar[str] = "sasrec"

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(dropout=0.3), cls(rate=2e-3), cls(dimensions=128, heads=4), cls(layers=1))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> SequenceRanker:
        """Train; see `Baseline.fit`."""
        return fit_sequences(self, training, seed, fitting)


FIRST_SASREC = SASRec(rate=2e-3, epochs=30, patience=2)
"""The default before it was tuned again: runs and rankers that were begun with it go on with it."""
