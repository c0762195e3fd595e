"""A grid of mixes: which backends may speak for MOPE, MOTE, MAR and the judge (paper, section 5.2, as a tool)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from programs.lm.roles import ROLE_NAMES, RoleConfig, Roles
from programs.runtime.config_file import read_toml

BackendName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$", max_length=30)]
"""Part of a mix's label and folder: no separators, nothing a path gives a meaning to."""

JOIN = "_"


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BackendSpec(_Part):
    """A language model under the name the grid calls it by.

    Attributes:
        model: In any form of docs/models.md.
        temperature, top_p, max_tokens, logprobs: Replace the preset's where given. Log-probabilities decide how a
            pointwise rating is read, and with it accuracy and cost; every result says which way was used.
        api_key_env: Environment variable with the key, where it is not the provider's usual one.
    """

    model: str
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    api_key_env: str | None = None

    def configured(self, role: RoleConfig) -> RoleConfig:
        """The role's configuration with this backend's settings on top."""
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
        """`MOPE_MOTE_MAR`, with the judge where it is not MAR's backend; also the mix's folder."""
        names = [self.mope, self.mote, self.mar] + ([self.judge] if self.judge != self.mar else [])
        return JOIN.join(names)


class Grid(_Part):
    """What is compared, and by what it is judged.

    Attributes:
        backends: By name.
        mope, mote, mar: Names of the backends tried in each role.
        judge: Likewise for the re-check of reasons; MAR's backend where empty.
        ranker: A program of `--ranker`, the same for all mixes.
        weight, head, explain: As in `mllm3rec evaluate`.
        reference: Label of the mix others are tested against; the first one where empty.
        metric: What the recommendation looks at.
        margin: Loss of that metric against the best mix that is still acceptable, 0 to 1.
        confidence: With what confidence the loss must be smaller, 0 to 1.
        workers: Users ranked at the same time; a backend's own limits hold besides.
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
    workers: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _known(self) -> Self:
        for role in ROLE_NAMES:
            for name in getattr(self, role):
                if name not in self.backends:
                    raise ValueError(f"{role}: no backend {name!r}; there are {', '.join(self.backends)}")
        labels = [mix.label for mix in self.mixes()]
        if self.reference and self.reference not in labels:
            raise ValueError(f"reference: no mix {self.reference!r}; there are {', '.join(labels)}")
        return self

    def mixes(self) -> Iterator[Mix]:
        """Every mix, those that share MOPE's and MOTE's backend next to each other: their work is done once."""
        for mope, mote, mar in product(self.mope, self.mote, self.mar):
            for judge in self.judge or (mar,):
                yield Mix(mope, mote, mar, judge)

    @property
    def reference_label(self) -> str:
        """The label of the mix others are tested against."""
        return self.reference or next(self.mixes()).label

    def roles(self, mix: Mix, preset: Roles) -> Roles:
        """The roles of a mix: the preset's, with the mix's models and their settings."""
        named = {role: self.backends[getattr(mix, role)] for role in ROLE_NAMES}
        roles = preset.with_models(**{role: backend.model for role, backend in named.items()})
        return roles.model_copy(update={role: backend.configured(roles.of(role)) for role, backend in named.items()})


def read_grid(path: Path) -> Grid:
    """Read a grid from TOML.

    Raises:
        InputError: naming file and field, if it cannot be read or describes no grid.
    """
    return read_toml(path, Grid)
