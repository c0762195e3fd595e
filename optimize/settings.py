"""Settings of a compile: everything that decides what it does."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from optimize.candidates import Recipe
from optimize.objective import ObjectiveWeights
from optimize.space import Space
from programs.lm.roles import RoleConfig, Roles
from signatures.schema import MotivationSchema


class CompileSettings(BaseModel):
    """Everything that decides what a compile does, besides the number of trials; kept beside its results.

    Attributes:
        optimizer: `study`, or one of DSPy's.
        modules: What is tuned: some of `mope`, `mote`, `mar`.
        similarity: Name of Sim of eq. 5.
        interactions: k of eq. 5 in the objective.
        held_out: Share of the dev shoppers the winner is checked on.
        proposer: Who writes instructions and reflects.
        models: What the roles' models are, by content for files: see `programs.lm.endpoints.model_name`.
        encoder: Name of the sentence encoder behind the prior and semantic similarity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal["mllm3rec-compile/1"] = "mllm3rec-compile/1"
    optimizer: Literal["study", "mipro", "gepa", "random-search", "labeled"] = "study"
    modules: tuple[str, ...] = ("mope", "mote", "mar")
    trials: int = Field(default=12, ge=1)
    seed: int = 0
    pareto: bool = False
    recipe: Recipe = Field(default_factory=Recipe)
    space: Space
    weights: ObjectiveWeights = Field(default_factory=ObjectiveWeights)
    similarity: str = "schema"
    interactions: int = Field(default=3, ge=0)
    held_out: float = Field(default=0.3, gt=0, lt=1)
    roles: Roles
    proposer: RoleConfig
    models: dict[str, str] = {}
    encoder: str = ""
    motivations: MotivationSchema
    head: int | None = None
    cases_sha256: str
    versions: dict[str, str] = {}
