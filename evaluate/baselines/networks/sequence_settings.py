"""Hyperparameters of the sequential recommenders: one trainer for all, and an encoder for each."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from evaluate.baselines.networks.network_baseline import NetworkBaseline, require_divisible

EncoderName = Literal["attention", "masked", "gru", "gates", "dual"]
"""How a history becomes a state, see `encoders.py`."""

ReadText = Literal["item", "traits"]
"""What is known of an item: its whole text, or MOTE's traits where a trait store has them and its title elsewhere."""


class SequenceSettings(NetworkBaseline):
    """Common settings; the loss is a softmax over the target item and sampled negatives.

    Memory: about 20 bytes for each item and dimension (weights and their best, gradients, Adam), for each table of item
    vectors, and about 16 bytes for each of the batch x length x negatives scores of a step.

    Attributes:
        dimensions: Dimension of the vectors.
        dropout: Dropout rate in training.
        length: Most items of a history, the last ones.
        negatives: Items sampled uniformly per batch.
        batch: Histories per batch.
        rate: Learning rate of Adam.
        epochs: Most passes over the histories.
        patience: Passes without a better validation score before training stops.
        validation: Most users whose last item is held out for validation; at most a tenth of all users.
    """

    encoder: ClassVar[EncoderName]

    dimensions: int = Field(default=64, ge=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    length: int = Field(default=20, ge=2)
    negatives: int = Field(default=1000, ge=1)
    batch: int = Field(default=128, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    epochs: int = Field(default=60, ge=1)
    patience: int = Field(default=5, ge=1)
    validation: int = Field(default=2000, ge=0)


class AttentionSettings(SequenceSettings):
    """Further settings of Transformers.

    Attributes:
        layers: Transformer blocks.
        heads: Attention heads per block; they divide `dimensions`.
    """

    encoder: ClassVar[EncoderName] = "attention"

    layers: int = Field(default=1, ge=1)
    heads: int = Field(default=2, ge=1)

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        require_divisible(self.dimensions, self.heads)
        return self


class SASRecSettings(AttentionSettings):
    """SASRec's defaults, tuned on dev users; also of the SASRec inside Diff4Rec and DiffuASR."""

    layers: int = Field(default=2, ge=1)
    patience: int = Field(default=3, ge=1)


class MaskedSettings(AttentionSettings):
    """Further settings of masked training.

    Attributes:
        masked: Share of a history's items that are masked.
        cut: Share of histories that are cut at a random item, which alone is masked, as in ranking. So items at every
            position are learned as next ones.
        last_only: Share of the others in which only the last item is masked.
    """

    encoder: ClassVar[EncoderName] = "masked"

    layers: int = Field(default=2, ge=1)
    dropout: float = Field(default=0.3, ge=0, lt=1)
    rate: float = Field(default=2e-3, gt=0)
    patience: int = Field(default=4, ge=1)
    masked: float = Field(default=0.4, gt=0, lt=1)
    cut: float = Field(default=0.5, ge=0, le=1)
    last_only: float = Field(default=0.3, ge=0, le=1)


class TextSettings(AttentionSettings):
    """Further settings of Transformers that also read what is known of an item; they score items without users, too.

    Attributes:
        text: What is read of an item.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"preset", "model", "mote"})

    text: ReadText = "item"

    @property
    def reads_traits(self) -> bool:
        """See `Baseline.reads_traits`."""
        return self.text == "traits"


class DistilledSettings(TextSettings):
    """Further settings of training with self-distillation: a state is drawn towards those of similar users.

    Attributes:
        distilled: Weight of the squared distance to the mean state of similar users.
        similar: Number of similar users.
    """

    encoder: ClassVar[EncoderName] = "dual"

    distilled: float = Field(default=0.1, ge=0)
    similar: int = Field(default=10, ge=1)


class GateSettings(SequenceSettings):
    """Further settings of gates.

    Attributes:
        window: Number of last items that a state is made of.
    """

    encoder: ClassVar[EncoderName] = "gates"

    window: int = Field(default=5, ge=1)
