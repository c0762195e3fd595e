"""SeRALM (Ren et al., SIGIR 2024): what a language model wrote about an item, added to its id in a SASRec."""

from __future__ import annotations

from typing import ClassVar, Self

from evaluate.baselines.networks.sequence_ranker import SequenceFit
from evaluate.baselines.networks.sequence_settings import ReadText, TextSettings


class SeRALM(SequenceFit, TextSettings):
    """SeRALM with MOTE's traits as what the model wrote, without aligning the model; see docs/systems.md."""

    name: ClassVar[str] = "seralm"

    text: ReadText = "traits"

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(text="item"), cls(dropout=0.3), cls(rate=2e-3), cls(dimensions=128))
