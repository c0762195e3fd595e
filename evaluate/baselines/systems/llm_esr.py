"""LLM-ESR (Liu et al., NeurIPS 2024): item ids and frozen item texts as two views, and similar users as teachers."""

from __future__ import annotations

from typing import ClassVar, Self

from evaluate.baselines.networks.sequence_ranker import SequenceFit
from evaluate.baselines.networks.sequence_settings import DistilledSettings


class LLMESR(SequenceFit, DistilledSettings):
    """LLM-ESR with the sentence encoder's vectors in place of ada-002's; see docs/systems.md."""

    name: ClassVar[str] = "llm-esr"

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(dropout=0.3), cls(distilled=0.0), cls(text="traits"), cls(rate=2e-3))
