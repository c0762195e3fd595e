"""Hyperparameters of Diff4Rec and DiffuASR: a SASRec, and what augments its training sequences."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from evaluate.baselines.networks.sequence_settings import SASRecSettings


class Diff4RecSettings(SASRecSettings):
    """Further settings of Diff4Rec.

    Attributes:
        candidates: Items that DiffRec proposes for a user.
        kept: Those of them that SASRec scores highest.
        inserted: Share of the sequences that get one of these, once all may.
        ramp: Epochs until all users may: the share of users grows, those with the most agreement first.
        auxiliary: Weight of an inserted item as a target; a real one weighs 1.
    """

    candidates: int = Field(default=50, ge=1)
    kept: int = Field(default=5, ge=1)
    inserted: float = Field(default=0.3, ge=0, le=1)
    ramp: int = Field(default=10, ge=1)
    auxiliary: float = Field(default=0.1, ge=0, le=1)


class DiffuASRSettings(SASRecSettings):
    """Further settings of DiffuASR.

    Attributes:
        generated: Items put before a sequence.
        augmented: Share of the sequences that get them in an epoch. A ranked history gets none, so the network must
            know both.
        least: Fewest items of a sequence that the diffusion learns from.
        guide: Items that follow and guide the generation.
        steps: T, steps of the diffusion.
        calls: Calls of the network in generation (DDIM).
        guidance: w of classifier-free guidance: (1 + w) times the guided prediction minus w times the unguided one.
        unguided: Share of the training examples without a guide.
        diffusion_epochs: Most passes of the diffusion over the sequences.
        diffusion_rate: Learning rate of the diffusion.
    """

    generated: int = Field(default=3, ge=1)
    augmented: float = Field(default=0.5, ge=0, le=1)
    least: int = Field(default=6, ge=2)
    guide: int = Field(default=5, ge=1)
    steps: int = Field(default=100, ge=1)
    calls: int = Field(default=5, ge=1)
    guidance: float = Field(default=1.0, ge=0)
    unguided: float = Field(default=0.1, ge=0, le=1)
    diffusion_epochs: int = Field(default=30, ge=1)
    diffusion_rate: float = Field(default=1e-3, gt=0)

    @model_validator(mode="after")
    def _long_enough(self) -> Self:
        if self.least <= self.generated:
            raise ValueError(f"sequences of least={self.least} items have none after generated={self.generated}")
        return self
