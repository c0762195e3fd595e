"""Hyperparameters of NeuMF."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from evaluate.baselines.networks.network_baseline import NetworkBaseline


class NeuMFSettings(NetworkBaseline):
    """Hyperparameters of NeuMF.

    Attributes:
        factors: Dimension of the vectors whose product is taken.
        layers: Widths of the network: its input, half of it the user's and half the item's, and its layers.
        negatives: Items sampled for each interaction, anew in every epoch; one that the user has is drawn again, once.
        penalty: L2 regularization of the vectors of each pair.
        batch: Pairs per batch.
        rate: Learning rate of Adam.
        epochs: Most passes over the interactions.
        patience: Passes without a better validation score before training stops.
        validation: Most users whose last item is held out for validation; at most a tenth of all users.
    """

    factors: int = Field(default=32, ge=1)
    layers: tuple[Annotated[int, Field(ge=2, multiple_of=2)], ...] = Field(default=(64, 32, 16, 8), min_length=1)
    negatives: int = Field(default=4, ge=1)
    penalty: float = Field(default=0.003, ge=0)
    batch: int = Field(default=1024, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    epochs: int = Field(default=60, ge=1)
    patience: int = Field(default=4, ge=1)
    validation: int = Field(default=2000, ge=0)
