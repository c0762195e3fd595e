"""SASRec and BERT4Rec: what comes next, from the order of what came before.

One Transformer (`network.py`) serves both, and not cornac's models. Measured on Amazon Toys (target `last`, 29 uniform
negatives, 2,000 to 4,000 dev users; CPU seconds of a shared core, cornac's from one or two epochs times their number):
cornac's SASRec reached HR@5 .59 after 310 s, its GPT-2 with next-item loss .55 after 230 s, its masked BERT .53 after
200 s; ours .59 after 90 to 130 s and .57 after 150 to 200 s. Every place of a history is learned from at once, batches
hold little padding, and training stops by itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from evaluate.baselines.baseline import Baseline, TrainingData, unknown_below
from programs.ranker import ranking_from_scores
from programs.runtime.errors import require_extra
from signatures.rows import Case, Ranking

if TYPE_CHECKING:
    from evaluate.baselines.network import Transformer


class Sequential(Baseline):
    """What the two models share. Their loss is a softmax over the hidden item and sampled ones.

    Attributes:
        dimensions: Length of the vectors; a multiple of `heads`.
        layers: Transformer blocks.
        heads: Attention heads per block.
        dropout: Share of activations dropped in training.
        length: Items of the history that are looked at, newest first.
        negatives: Items sampled uniformly per batch, to compare hidden items with.
        batch: Histories per step.
        rate: Step size of Adam.
        epochs: Passes over the histories, at most.
        patience: Passes without a better validation before training stops.
        validation: Users whose last item is kept for validation, at most; never more than a tenth of them.
    """

    dimensions: int = Field(default=64, ge=1)
    layers: int = Field(default=2, ge=1)
    heads: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    length: int = Field(default=20, ge=2)
    negatives: int = Field(default=1000, ge=1)
    batch: int = Field(default=128, ge=1)
    rate: float = Field(default=2e-3, gt=0)
    epochs: int = Field(default=30, ge=1)
    patience: int = Field(default=2, ge=1)
    validation: int = Field(default=2000, ge=0)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        if self.dimensions % self.heads:
            raise ValueError(f"{self.dimensions} dimensions cannot be shared by {self.heads} heads alike")
        return self

    def fit(self, material: TrainingData, seed: int) -> SequenceRanker:
        """Train; see `Baseline.fit`."""
        require_extra("torch", "neural", f"the ranker '{self.name}'")
        from evaluate.baselines.network import train

        rows: dict[str, int] = {}
        sequences = [
            _rows(rows.setdefault(item, len(rows)) for item in history)
            for history in material.histories.values()
            if history
        ]
        return SequenceRanker(self, rows, train(sequences, len(rows), self, seed))


class SASRec(Sequential):
    """Self-attentive sequential recommendation (Kang and McAuley, ICDM 2018): every item from those before it."""

    name: ClassVar[str] = "sasrec"

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(dropout=0.3), cls(rate=1e-3), cls(dimensions=128, heads=4), cls(layers=1))


class BERT4Rec(Sequential):
    """BERT4Rec (Sun et al., CIKM 2019): hidden items from those on both sides of them.

    Attributes:
        masked: Share of a history's items that are hidden.
        last_only: Share of histories in which only the newest item is hidden: the question that ranking asks.
    """

    name: ClassVar[str] = "bert4rec"

    dropout: float = Field(default=0.3, ge=0, lt=1)
    epochs: int = Field(default=60, ge=1)
    patience: int = Field(default=4, ge=1)
    masked: float = Field(default=0.4, gt=0, lt=1)
    last_only: float = Field(default=0.3, ge=0, le=1)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(dropout=0.2), cls(masked=0.2), cls(masked=0.6), cls(dimensions=128, heads=4))


class SequenceRanker:
    """Ranks by a trained network.

    Users play no role. Items without a vector are skipped in the history; where it has no other, the biases decide,
    which is popularity. Candidates without a vector: `unknown_below`.
    """

    def __init__(self, settings: Sequential, rows: dict[str, int], network: Transformer) -> None:
        self.settings = settings
        self.rows = rows
        self.network = network

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        from evaluate.baselines.network import item_scores

        history = [self.rows[event.item_id] for event in case.history if event.item_id in self.rows]
        places = [place for place, item in enumerate(case.candidates) if item in self.rows]
        candidates = [self.rows[case.candidates[place]] for place in places]
        known = item_scores(self.network, _rows(history), _rows(candidates), self.settings)
        scores = unknown_below(known, places, len(case.candidates))
        name = self.settings.name
        return ranking_from_scores(case, {name: scores.tolist()}, by=name)


def _rows(numbers: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(numbers, dtype=np.int64)
