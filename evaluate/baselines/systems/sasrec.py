"""SASRec (Kang and McAuley, ICDM 2018): a Transformer that predicts every item from the items before it."""

from __future__ import annotations

from typing import ClassVar, Self

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.networks.sequence_ranker import SequenceFit
from evaluate.baselines.networks.sequence_settings import SASRecSettings


class SASRec(SequenceFit, SASRecSettings):
    """SASRec: causal attention, the next item at every position."""

    name: ClassVar[str] = "sasrec"

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(dropout=0.3), cls(rate=2e-3), cls(dimensions=128, heads=4), cls(layers=1))


def sasrec_inside(settings: SASRecSettings, training: TrainingData) -> tuple[SASRec, int]:
    """The SASRec of a system around one, with the system's own settings, and the number of items with users."""
    items = {item for history in training.histories.values() for item in history}
    return SASRec.model_validate(settings.model_dump(include=set(SASRec.model_fields))), len(items)


FIRST_SASREC = SASRec(rate=2e-3, epochs=30, patience=2)
"""The default before it was tuned again: runs and rankers that were begun with it go on with it."""
