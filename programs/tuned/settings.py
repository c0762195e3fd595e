"""Settings of a fine-tuned reader, and the lists that it learns from; needs no torch."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field


class TuningSettings(BaseModel):
    """How the adapters are shaped and trained. The number of lists is fixed, so that two runs agree.

    Attributes:
        layers: Adapters are in this many of the last layers; the ones below run without gradients.
        adapted: Matrices with adapters: those of queries and values, or all of attention and of the feed-forward parts.
        rank, alpha: Of LoRA.
        lists: Training lists to read, with repetition where there are fewer.
        every_purchase: Whether further purchases become targets where the setting's own lists are fewer than `lists`.
        batch: Lists of one step.
        block: Steps between two evaluations on dev lists; each ends with a checkpoint.
        rate: Highest learning rate, after `warmup` of the steps; it then falls to 0 in equal steps.
        patience: Blocks without a lower dev loss after which training stops.
        average: Decay of the moving average of the adapters over steps, see `decay_at`; 0 keeps those of the last step.
        stopping_users: Most dev users whose lists decide when to stop.
        beside_prior: Further lists that are read beside the prior, see `optimize.beside_prior`.

    Defaults are those of records that leave a field out; a new training has `NEWEST_TUNING`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    layers: int = Field(default=10, ge=1)
    adapted: Literal["queries and values", "all"] = Field(
        default="queries and values", exclude_if=lambda adapted: adapted == "queries and values"
    )
    rank: int = Field(default=8, ge=1, le=256)
    alpha: int = Field(default=16, ge=1)
    lists: int = Field(default=1200, ge=1)
    batch: int = Field(default=4, ge=1)
    block: int = Field(default=20, ge=1)
    rate: float = Field(default=1e-3, gt=0)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    patience: int = Field(default=4, ge=1)
    seed: int = 0
    average: float = Field(default=0.0, ge=0, lt=1, exclude_if=lambda decay: not decay)
    stopping_users: int = Field(default=32, ge=1, exclude_if=lambda users: users == 32)
    every_purchase: bool = Field(default=False, exclude_if=lambda every: not every)
    beside_prior: int = Field(default=0, ge=0, exclude_if=lambda lists: not lists)

    @property
    def of_lists_beside_prior(self) -> TuningSettings:
        """Settings of the training that follows, on `beside_prior` lists: a lower rate, and four blocks."""
        block = max(1, -(-self.beside_prior // (4 * self.batch)))
        changed = {"lists": self.beside_prior, "beside_prior": 0, "rate": 0.4 * self.rate, "block": block}
        return self.model_copy(update=changed)

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

    def decay_at(self, step: int) -> float:
        """Decay of the average after a step, from 0; lower at the beginning, so that the start is soon forgotten.

        >>> settings = TuningSettings(average=0.98)
        >>> [round(settings.decay_at(step), 2) for step in (0, 9, 1000)], TuningSettings().decay_at(5)
        ([0.1, 0.53, 0.98], 0.0)
        """
        return min(self.average, (1 + step) / (10 + step))


NEWEST_TUNING: dict[str, Any] = {
    "layers": 16,
    "adapted": "all",
    "rank": 16,
    "alpha": 32,
    "rate": 5e-4,
    "lists": 4000,
    "block": 100,
    "patience": 3,
    "average": 0.98,
    "stopping_users": 96,
    "every_purchase": True,
}
"""What a new training has. For these adapters see docs/results.md, "Larger adapters". Dev losses jump by more than
a block gains: 32 users and a patience of 4 small blocks stopped a training on noise. To judge 96 users takes as long as
to read some 150 lists, which is why a block has 400."""


@dataclass(frozen=True, eq=False)
class Slot:
    """A place of a prompt where a vector from outside the language model stands in for a token.

    Attributes:
        kind: Which projection takes the vector, such as `user`.
        vector: Shape (size of the kind,).
    """

    kind: str
    vector: NDArray[np.float32]


Prefix = str | tuple[str | Slot, ...]
"""The text before all candidates, with slots where there are any."""


@dataclass(frozen=True)
class Beside:
    """What the prior says of a list that is learned from beside it.

    Attributes:
        prior: Its scores of the candidates, in nats.
        share: What the reader's scores are multiplied with before they are added.
    """

    prior: tuple[float, ...]
    share: float


@dataclass(frozen=True)
class PromptList:
    """A user's text, the texts of candidates, and which of them the user chose.

    Attributes:
        target: Index in `suffixes`.
        beside: The prior's part of the fused scores whose loss is trained; None for the reader's scores alone.
    """

    prefix: Prefix
    suffixes: tuple[str, ...]
    target: int
    beside: Beside | None = None

    @property
    def facts(self) -> list[Any]:
        """Everything in it, as JSON; vectors by their hash."""
        whole = self.prefix if isinstance(self.prefix, str) else [_piece(one) for one in self.prefix]
        beside = [] if self.beside is None else [self.beside.prior, self.beside.share]
        return [whole, self.suffixes, self.target, *beside]


def _piece(piece: str | Slot) -> str | list[str]:
    return piece if isinstance(piece, str) else [piece.kind, hashlib.sha256(piece.vector.tobytes()).hexdigest()]
