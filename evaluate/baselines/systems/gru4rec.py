"""GRU4Rec (Hidasi et al., ICLR 2016; Hidasi and Karatzoglou, CIKM 2018): gated recurrent units over the history."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field

from evaluate.baselines.networks.sequence_ranker import SequenceFit
from evaluate.baselines.networks.sequence_settings import EncoderName, SequenceSettings


class GRU4Rec(SequenceFit, SequenceSettings):
    """GRU4Rec on whole histories.

    The original trains on parallel sessions without looking back, with BPR-max or cross-entropy over popular negatives;
    here the gradient goes through the whole window, and the loss is that of the other sequential recommenders.
    """

    name: ClassVar[str] = "gru4rec"
    encoder: ClassVar[EncoderName] = "gru"

    dropout: float = Field(default=0.3, ge=0, lt=1)
    rate: float = Field(default=2e-3, gt=0)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(dropout=0.5), cls(rate=1e-3), cls(dimensions=128), cls(negatives=4000))
