"""Hyperparameters of the recommenders that write item codes with an encoder and a decoder."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from evaluate.baselines.networks.item_codes import ItemCodes, collaborative_codes, sequential_codes
from evaluate.baselines.networks.network_baseline import NetworkBaseline, require_divisible
from programs.runtime.errors import require_extra


class SeqToSeqSettings(NetworkBaseline):
    """Common settings; the loss is the cross-entropy of the tokens of an item, averaged over them.

    Attributes:
        dimensions: Dimension of the vectors.
        layers: Blocks of the encoder, and of the decoder.
        heads: Attention heads per block; they divide `dimensions`.
        dropout: Dropout rate in training.
        length: Most items of a history, the last ones.
        batch: Examples per batch.
        rate: Highest learning rate of AdamW; it rises over the first twentieth of the training and then falls to zero.
        epochs: Most passes over the users, one example of each.
        examples: Fewest examples of an epoch: fewer users give several each.
        patience: Epochs without a better validation score before training stops.
        validation: Most users whose last item is held out for validation; at most a tenth of all users.
    """

    dimensions: int = Field(default=128, ge=1)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=4, ge=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)
    length: int = Field(default=20, ge=1)
    batch: int = Field(default=128, ge=1)
    rate: float = Field(default=2e-3, gt=0)
    epochs: int = Field(default=12, ge=1)
    examples: int = Field(default=2000, ge=1)
    patience: int = Field(default=3, ge=1)
    validation: int = Field(default=1000, ge=0)

    def require_torch(self) -> None:
        """Raise `MissingExtraError` if the extra `finetune`, which has T5 beside torch, is not installed."""
        for package in ("torch", "transformers", "safetensors"):
            require_extra(package, "finetune", f"the ranker '{self.name}'")

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        require_divisible(self.dimensions, self.heads)
        return self


class IdSettings(SeqToSeqSettings):
    """Further settings where the codes of items come from histories.

    Attributes:
        ids: `collaborative_codes` or `sequential_codes`.
    """

    ids: Literal["collaborative", "sequential"] = "collaborative"

    def codes(self, histories: Sequence[Sequence[str]], others: Iterable[str]) -> ItemCodes:
        """The codes of the items of some histories, and of others."""
        return (collaborative_codes if self.ids == "collaborative" else sequential_codes)(histories, others)
