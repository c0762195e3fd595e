"""Specification of a comparison: the models to try for MOPE, MOTE, MAR and the judge (paper, section 5.2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from programs.lm.roles import ROLE_NAMES, RoleConfig, Roles
from programs.runtime.config_file import read_toml
from programs.runtime.errors import listed, quoted
from programs.runtime.interrupts import MAX_WORKERS

BackendName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$", max_length=30)]
"""Part of a mix's label and folder, so it has no separators and no special characters of paths."""

JOIN = "_"

MAX_MIXES = 10_000
"""Most mixes of a grid; long lists could otherwise make more mixes than fit in memory."""


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BackendSpec(_Strict):
    """A language model of the grid, with its settings.

    Attributes:
        model: A model string (docs/models.md).
        temperature, top_p, max_tokens, logprobs: Replace the preset's settings. Log-probabilities decide how a
            pointwise rating is read, which affects accuracy and cost; results record it.
        api_key_env: Environment variable with the key, unless it is the provider's usual one.
    """

    model: str
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    api_key_env: str | None = None

    def configured(self, role: RoleConfig) -> RoleConfig:
        """The role's configuration with the settings of this backend."""
        given = self.model_dump(exclude={"model"}, exclude_none=True)
        return RoleConfig.model_validate(role.model_dump() | given)


@dataclass(frozen=True)
class Mix:
    """One point of the grid: a backend's name for each role."""

    mope: str
    mote: str
    mar: str
    judge: str

    @property
    def label(self) -> str:
        """`MOPE_MOTE_MAR`, and the judge if it is not MAR's backend; also the name of the mix's folder."""
        names = [self.mope, self.mote, self.mar] + ([self.judge] if self.judge != self.mar else [])
        return JOIN.join(names)


class Grid(_Strict):
    """The mixes to compare, and how to compare them.

    Attributes:
        backends: By name.
        mope, mote, mar: Names of the backends to try in each role.
        judge: Names of the backends to try as judge; empty for MAR's backend.
        ranker: Name of a program, the same for all mixes.
        weight, head, explain: As in `mllm3rec evaluate`.
        reference: Label of the mix that others are tested against; empty for the first one.
        metric: Metric of the recommendation.
        margin: Largest acceptable loss of that metric against the best mix, 0 to 1.
        confidence: Confidence that the loss is within the margin, 0.5 to 1.
        workers: Users ranked at the same time, within the limits of the backends.
    """

    backends: dict[BackendName, BackendSpec] = Field(min_length=1)
    mope: tuple[str, ...] = Field(min_length=1)
    mote: tuple[str, ...] = Field(min_length=1)
    mar: tuple[str, ...] = Field(min_length=1)
    judge: tuple[str, ...] = ()
    preset: str = "local"
    ranker: str = "listwise"
    weight: float = Field(default=0.3, ge=0, le=1)
    head: int | None = Field(default=None, ge=1)
    explain: int = Field(default=0, ge=0)
    reference: str = ""
    metric: Literal["HR@5", "NDCG@5", "HR@10", "NDCG@10"] = "NDCG@10"
    margin: float = Field(default=0.02, gt=0, lt=1)
    confidence: float = Field(default=0.95, gt=0.5, lt=1)
    workers: int = Field(default=1, ge=1, le=MAX_WORKERS)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for role in ROLE_NAMES:
            for name in getattr(self, role):
                if name not in self.backends:
                    raise ValueError(f"{role}: no backend {quoted(name)}; there are {listed(self.backends)}")
        count = len(self.mope) * len(self.mote) * len(self.mar) * max(1, len(self.judge))
        if count > MAX_MIXES:
            raise ValueError(f"these lists make {count:,} mixes; at most {MAX_MIXES:,} can be compared")
        labels = [mix.label for mix in self.mixes()]
        if self.reference and self.reference not in labels:
            raise ValueError(f"reference: no mix {quoted(self.reference)}; there are {listed(labels)}")
        return self

    def mixes(self) -> Iterator[Mix]:
        """Every mix; those with the same backends for MOPE and MOTE, which share their work, are adjacent."""
        for mope, mote, mar in product(self.mope, self.mote, self.mar):
            for judge in self.judge or (mar,):
                yield Mix(mope, mote, mar, judge)

    @property
    def reference_label(self) -> str:
        """Label of the mix that others are tested against."""
        return self.reference or next(self.mixes()).label

    def roles(self, mix: Mix, preset: Roles) -> Roles:
        """The preset's roles with the models and settings of a mix."""
        named = {role: self.backends[getattr(mix, role)] for role in ROLE_NAMES}
        roles = preset.with_models(**{role: backend.model for role, backend in named.items()})
        return roles.model_copy(update={role: backend.configured(roles.of(role)) for role, backend in named.items()})


def read_grid(path: Path) -> Grid:
    """Read a grid from TOML.

    Raises:
        InputError: naming file and field, if it cannot be read or is not a valid grid.
    """
    return read_toml(path, Grid)
