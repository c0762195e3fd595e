"""Hyperparameters of DiffRec."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from evaluate.baselines.networks.network_baseline import NetworkBaseline


class DiffRecSettings(NetworkBaseline):
    """Hyperparameters of DiffRec.

    Attributes:
        hidden: Width of the network's only hidden layer.
        steps: T, steps of the diffusion.
        scale: Factor of both variances of the noise.
        least, most: Variance of the noise at the first and at the last step, before `scale`.
        oldest: Weight of the oldest item of a history, between which and 1 for the newest weights grow linearly
            (T-DiffRec); 1 for the order not to count.
        dropout: Dropout rate of the network's input.
        batch: Users per batch.
        rate: Learning rate of AdamW.
        epochs: Most passes over the users.
        patience: Passes without a better validation score before training stops.
        validation: Most users whose last item is held out for validation; at most a tenth of all users.
    """

    hidden: int = Field(default=300, ge=1)
    steps: int = Field(default=5, ge=1)
    scale: float = Field(default=0.01, gt=0)
    least: float = Field(default=5e-4, gt=0)
    most: float = Field(default=5e-3, gt=0)
    oldest: float = Field(default=0.5, gt=0, le=1)
    dropout: float = Field(default=0.5, ge=0, lt=1)
    batch: int = Field(default=400, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    epochs: int = Field(default=40, ge=1)
    patience: int = Field(default=4, ge=1)
    validation: int = Field(default=2000, ge=0)

    @model_validator(mode="after")
    def _growing(self) -> Self:
        if not self.least <= self.most < 1 / self.scale:
            raise ValueError(f"the noise grows from least={self.least} to most={self.most}, below 1 / scale")
        return self
