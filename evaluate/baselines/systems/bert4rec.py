"""BERT4Rec (Sun et al., CIKM 2019): a Transformer that predicts masked items from the items on both sides."""

from __future__ import annotations

from typing import ClassVar, Self

from evaluate.baselines.networks.sequence_ranker import SequenceFit
from evaluate.baselines.networks.sequence_settings import MaskedSettings


class BERT4Rec(SequenceFit, MaskedSettings):
    """BERT4Rec: attention to both sides, masked items."""

    name: ClassVar[str] = "bert4rec"
    fit_version: ClassVar[int] = 2

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(dropout=0.2), cls(masked=0.2), cls(masked=0.6), cls(dimensions=128, heads=4))
