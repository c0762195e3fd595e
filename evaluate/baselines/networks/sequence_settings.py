"""Hyperparameters of the sequential recommenders SASRec and BERT4Rec."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from evaluate.baselines.baseline import Baseline


class SequenceSettings(Baseline):
    """Common settings of SASRec and BERT4Rec; their loss is a softmax over the target item and sampled negatives.

    Attributes:
        dimensions: Dimension of the vectors; a multiple of `heads`.
        layers: Transformer blocks.
        heads: Attention heads per block.
        dropout: Dropout rate in training.
        length: Most items of a history, the last ones.
        negatives: Items sampled uniformly per batch.
        batch: Histories per batch.
        rate: Learning rate of Adam.
        epochs: Most passes over the histories.
        patience: Passes without a better validation score before training stops.
        validation: Most users whose last item is held out for validation; at most a tenth of all users.
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
            raise ValueError(f"{self.dimensions} dimensions cannot be divided by {self.heads} heads")
        return self


class MaskedSettings(SequenceSettings):
    """Further settings of masked training.

    Attributes:
        masked: Share of a history's items that are masked.
        last_only: Share of histories in which only the last item is masked, as in ranking.
    """

    dropout: float = Field(default=0.3, ge=0, lt=1)
    epochs: int = Field(default=60, ge=1)
    patience: int = Field(default=4, ge=1)
    masked: float = Field(default=0.4, gt=0, lt=1)
    last_only: float = Field(default=0.3, ge=0, le=1)
