"""Settings of a compile, and the check that a resumed compile has the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from optimize.candidates import CandidateSettings
from optimize.feedback import REFLECTED_USERS
from optimize.objective import ObjectiveWeights
from optimize.space import Space
from programs.lm.roles import RoleConfig, Roles
from programs.prior.choice import NEWEST, PriorName, recorded_prior
from programs.runtime.atomic import write_atomically
from programs.runtime.config_file import read_json
from programs.runtime.errors import InputError
from programs.tuned.settings import NEWEST_TUNING, TuningSettings
from signatures.schema import MotivationSchema

_MAY_CHANGE = {"trials", "versions"}


class GepaSettings(BaseModel):
    """Options of GEPA 0.1.4; the defaults are GEPA's own.

    Attributes:
        reflected_users: Users of one reflection.
        parents, proposals: Programs to go on from in each round, and proposals for each of them.
        frontier: What candidates are kept for being best at: single users, parts of the objective, or both.
        acceptance: Whether a proposal must be better on its batch of users, or may be equal.
        merge: Whether the instructions of two candidates are merged, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    reflected_users: int = Field(default=3, ge=1, le=1000)
    parents: int = Field(default=1, ge=1, le=100)
    proposals: int = Field(default=1, ge=1, le=100)
    frontier: Literal["instance", "objective", "hybrid", "cartesian"] = "instance"
    acceptance: Literal["strict_improvement", "improvement_or_equal"] = "strict_improvement"
    merge: bool = True


class CompileSettings(BaseModel):
    """All settings of a compile; stored with its results.

    Settings that were added later have defaults that mean what a compile did without them (`AS_BEFORE`), so that
    older ones can be resumed.

    Attributes:
        optimizer: `study` (our Optuna search), one of DSPy's, `prototypes` (of the program `encoder`), or `finetune`
            (weights instead of prompts).
        modules: Modules to tune, of `mope`, `mote`, `mar`.
        recipe: How candidates are made.
        similarity: Name of Sim of eq. 5.
        interactions: k of eq. 5 in the objective.
        held_out: Share of the dev users that the winner is checked on.
        finalists: Number of best programs that are scored again before the winner is chosen; 0 for none.
        draws: Number of draws of labels and order that each finalist is scored with.
        final_share: Share of the users of the search that only the finalists are scored on.
        fit_weight: Whether the winner's fusion weight is fitted on the users of the search.
        deterministic: Whether models on this machine answer deterministically, see `RoleConfig`.
        gepa: Options of the optimizer `gepa`.
        proposer: Model that writes instructions, and reflects for GEPA.
        models: Model names by role, see `programs.lm.endpoints.model_name`.
        encoder: Name of the sentence encoder of the prior and of semantic similarity.
        prior: Formula of the prior, see `programs.prior.choice.recorded`; compiles from before there was a choice have
            none.
        base, tuning: Base model and training of the optimizer `finetune`.
        start: Hash of the artifact that the compile goes on from; empty without one.
        dataset_sha256: Hash of the data that the cases were drawn from; empty in compiles of older versions.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["mllm3rec-compile/1"] = "mllm3rec-compile/1"
    optimizer: Literal["study", "mipro", "gepa", "random-search", "labeled", "prototypes", "finetune"] = "study"
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
    finalists: int = Field(default=0, ge=0, le=100)
    draws: int = Field(default=1, ge=1, le=100)
    final_share: float = Field(default=0.0, ge=0, lt=1)
    fit_weight: bool = False
    deterministic: bool = False
    gepa: GepaSettings = Field(default_factory=GepaSettings)
    roles: Roles
    proposer: RoleConfig
    models: dict[str, str] = {}
    encoder: str = ""
    prior: int | str = 2
    motivations: MotivationSchema
    head: int | None = None
    start: str = ""
    base: str = Field(default="", exclude_if=lambda base: not base)
    tuning: TuningSettings | None = Field(default=None, exclude_if=lambda tuning: tuning is None)
    cases_sha256: str
    dataset_sha256: str = Field(default="", exclude_if=lambda sha256: not sha256)
    versions: dict[str, str] = {}

    def save(self, path: Path) -> None:
        """Write the settings of a new or resumed compile.

        Raises:
            InputError: as `refuse_other`.
        """
        self.refuse_other(path)
        write_atomically(path, self.model_dump_json(indent=1).encode() + b"\n")

    def refuse_other(self, path: Path) -> None:
        """Refuse to resume a compile with other settings; trials, versions and timeouts may change.

        Raises:
            InputError: naming the settings that differ from those in the file, if there is one.
        """
        if path.exists():
            stored = AS_BEFORE | read_json(path, dict[str, Any], "choose another --out")
            stored["recipe"] = {"reflections": 0} | stored.get("recipe", {})
            unknown = set() if stored.get("dataset_sha256") else {"dataset_sha256"}
            settings = self.model_dump(mode="json", exclude=_MAY_CHANGE | unknown)
            differing = [name for name, value in settings.items() if _decisive(stored.get(name)) != _decisive(value)]
            if differing:
                raise InputError(
                    f"{path}: this compile has other {', '.join(differing)}; give the same options to resume it, "
                    "or another --out"
                )


AS_BEFORE: dict[str, Any] = {
    name: CompileSettings.model_fields[name].get_default(call_default_factory=True)
    for name in ("prior", "finalists", "draws", "final_share", "fit_weight", "deterministic", "start")
} | {"gepa": GepaSettings().model_dump(mode="json")}
"""Settings that were added later, as a compile has them that was begun before."""

NEWEST_DEFAULTS: dict[str, Any] = {
    "finalists": 3,
    "draws": 3,
    "final_share": 0.25,
    "fit_weight": True,
    "deterministic": True,
    "gepa": GepaSettings(reflected_users=REFLECTED_USERS, proposals=2),
    "reflections": 1,
}
"""Settings that were added later, as a new compile has them unless told otherwise."""


def defaults_of_compile(plan: Path) -> dict[str, Any]:
    """What settings that were added later are where they are not given.

    Args:
        plan: The settings file of the compile; it need not exist.

    Raises:
        InputError: if the file cannot be read.
    """
    if not plan.exists():
        return NEWEST_DEFAULTS
    stored = read_json(plan, dict[str, Any], "choose another --out")
    known = {**stored, **stored.get("recipe", {})}
    before = {**AS_BEFORE, "reflections": 0}
    return {name: value if name in known else before[name] for name, value in NEWEST_DEFAULTS.items()}


def prior_of_compile(plan: Path, new: PriorName = NEWEST) -> PriorName:
    """The formula of the prior for a compile: that of its settings file.

    Args:
        new: Of a compile that has no settings file yet.

    Raises:
        InputError: if the file cannot be read.
    """
    if not plan.exists():
        return new
    return recorded_prior(read_json(plan, dict[str, Any], "choose another --out"))


def tuning_of_compile(plan: Path) -> dict[str, Any]:
    """How a new training stops, or the one of a settings file, which may be from before this was chosen.

    Raises:
        InputError: if the file cannot be read.
    """
    if not plan.exists():
        return NEWEST_TUNING
    stored = read_json(plan, dict[str, Any], "choose another --out").get("tuning") or {}
    return {name: stored[name] for name in NEWEST_TUNING if name in stored}


def _decisive(value: Any) -> Any:
    """A setting without timeouts, which decide no score: a compile may go on with another one."""
    if isinstance(value, dict):
        return {name: _decisive(part) for name, part in value.items() if name != "timeout"}
    return value
