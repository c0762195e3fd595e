"""Hyperparameters of the sequential recommenders: what the network, its training and the rankers all read."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from evaluate.baselines.baseline import Baseline


class SequenceSettings(Baseline):
    """What SASRec and BERT4Rec share. Their loss is a softmax over the hidden item and sampled ones.

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


class MaskedSettings(SequenceSettings):
    """What masked training needs besides: hidden items are told from those on both sides of them.

    Attributes:
        masked: Share of a history's items that are hidden.
        last_only: Share of histories in which only the newest item is hidden: the question that ranking asks.
    """

    dropout: float = Field(default=0.3, ge=0, lt=1)
    epochs: int = Field(default=60, ge=1)
    patience: int = Field(default=4, ge=1)
    masked: float = Field(default=0.4, gt=0, lt=1)
    last_only: float = Field(default=0.3, ge=0, le=1)
