"""HGN, hierarchical gating networks (Ma, Kang and Liu, KDD 2019): a user's vector and gates over the last items."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field

from evaluate.baselines.networks.sequence_ranker import SequenceFit
from evaluate.baselines.networks.sequence_settings import GateSettings


class HGN(SequenceFit, GateSettings):
    """HGN; the loss is a sampled softmax in place of BPR.

    A user outside the fit has a vector of zeros, so that the gates depend on the items alone.
    """

    name: ClassVar[str] = "hgn"

    dropout: float = Field(default=0.3, ge=0, lt=1)
    rate: float = Field(default=2e-3, gt=0)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(dropout=0.5), cls(window=3), cls(dimensions=128), cls(rate=1e-3))
