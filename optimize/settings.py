"""Settings of a compile, and the check that a resumed compile has the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from optimize.candidates import CandidateSettings
from optimize.objective import ObjectiveWeights
from optimize.space import Space
from programs.lm.roles import RoleConfig, Roles
from programs.prior.choice import NEWEST, PriorName, recorded_prior
from programs.runtime.atomic import write_atomically
from programs.runtime.config_file import read_json
from programs.runtime.errors import InputError
from signatures.schema import MotivationSchema

_MAY_CHANGE = {"trials", "versions"}


class CompileSettings(BaseModel):
    """All settings of a compile; stored with its results.

    Attributes:
        optimizer: `study` (our Optuna search), or one of DSPy's.
        modules: Modules to tune, of `mope`, `mote`, `mar`.
        recipe: How candidates are made.
        similarity: Name of Sim of eq. 5.
        interactions: k of eq. 5 in the objective.
        held_out: Share of the dev users that the winner is checked on.
        proposer: Model that writes instructions, and reflects for GEPA.
        models: Model names by role, see `programs.lm.endpoints.model_name`.
        encoder: Name of the sentence encoder of the prior and of semantic similarity.
        prior: Formula of the prior, see `programs.prior.choice.recorded`; compiles from before there was a choice have
            none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["mllm3rec-compile/1"] = "mllm3rec-compile/1"
    optimizer: Literal["study", "mipro", "gepa", "random-search", "labeled"] = "study"
    modules: tuple[str, ...] = ("mope", "mote", "mar")
    trials: int = Field(default=12, ge=1, le=1_000_000)
    seed: int = Field(default=0, ge=0, lt=2**31)
    pareto: bool = False
    recipe: CandidateSettings = Field(default_factory=CandidateSettings)
    space: Space
    weights: ObjectiveWeights = Field(default_factory=ObjectiveWeights)
    similarity: str = "schema"
    interactions: int = Field(default=3, ge=0, le=1000)
    held_out: float = Field(default=0.3, gt=0, lt=1)
    roles: Roles
    proposer: RoleConfig
    models: dict[str, str] = {}
    encoder: str = ""
    prior: int | str = 2
    motivations: MotivationSchema
    head: int | None = None
    cases_sha256: str
    versions: dict[str, str] = {}

    def save(self, path: Path) -> None:
        """Write the settings of a new or resumed compile; trials, versions and timeouts may change.

        Raises:
            InputError: naming the settings that differ from those in the file.
        """
        if path.exists():
            stored: dict[str, Any] = {"prior": 2} | read_json(path, dict[str, Any], "choose another --out")
            settings = self.model_dump(mode="json", exclude=_MAY_CHANGE)
            differing = [name for name, value in settings.items() if _decisive(stored.get(name)) != _decisive(value)]
            if differing:
                raise InputError(
                    f"{path}: this compile has other {', '.join(differing)}; give the same options to resume it, "
                    "or another --out"
                )
        write_atomically(path, self.model_dump_json(indent=1).encode() + b"\n")


def prior_of_compile(plan: Path) -> PriorName:
    """The formula of the prior for a compile: that of its settings file, or the newest if there is none.

    Raises:
        InputError: if the file cannot be read.
    """
    if not plan.exists():
        return NEWEST
    return recorded_prior(read_json(plan, dict[str, Any], "choose another --out"))


def _decisive(value: Any) -> Any:
    """A setting without timeouts, which decide no score: a compile may go on with another one."""
    if isinstance(value, dict):
        return {name: _decisive(part) for name, part in value.items() if name != "timeout"}
    return value
