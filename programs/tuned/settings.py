"""Settings of a fine-tuned reader, and the lists that it learns from; needs no torch."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict, Field


class TuningSettings(BaseModel):
    """How the adapters are shaped and trained. The number of lists is fixed, so that two runs agree.

    Attributes:
        layers: Adapters are in this many of the last layers; the ones below run without gradients.
        rank, alpha: Of LoRA.
        lists: Training lists to read, with repetition where there are fewer.
        batch: Lists of one step.
        block: Steps between two evaluations on dev lists; each ends with a checkpoint.
        rate: Highest learning rate, after `warmup` of the steps; it then falls to 0 in equal steps.
        patience: Blocks without a lower dev loss after which training stops.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(default=10, ge=1)
    rank: int = Field(default=8, ge=1, le=256)
    alpha: int = Field(default=16, ge=1)
    lists: int = Field(default=1200, ge=1)
    batch: int = Field(default=4, ge=1)
    block: int = Field(default=20, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    patience: int = Field(default=4, ge=1)
    seed: int = 0

    @property
    def steps(self) -> int:
        """Number of steps."""
        return -(-self.lists // self.batch)

    def rate_at(self, step: int) -> float:
        """Learning rate of a step, from 0.

        >>> settings = TuningSettings(lists=40, batch=4, warmup=0.2, rate=1.0)
        >>> [settings.rate_at(step) for step in (0, 1, 2, 9)]
        [0.5, 1.0, 1.0, 0.125]
        """
        rising = round(self.warmup * self.steps)
        if step < rising:
            return self.rate * (step + 1) / rising
        return self.rate * (self.steps - step) / (self.steps - rising)


@dataclass(frozen=True)
class PromptList:
    """A user's text, the texts of candidates, and which of them the user chose.

    Attributes:
        target: Index in `suffixes`.
    """

    prefix: str
    suffixes: tuple[str, ...]
    target: int
