"""Search space of a compile, its configurations, and the programs built from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, TypeVar

import optuna
from pydantic import BaseModel, ConfigDict, Field

from optimize.candidates import ORIGINAL, Candidates
from optimize.prompts import Prompt, Prompts, with_prompts
from programs.gate import Gate
from programs.lm.backends import Backends
from programs.lm.roles import RoleConfig, RoleName, Roles
from programs.program import DEFAULT_WEIGHT, PROGRAMS, Fusion, MLLM3Rec, Parts
from programs.prototypes import Prototypes

ChoiceT = TypeVar("ChoiceT", str, float)
Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=0, le=2)]

MODULES = ("mope", "mote", "mar")


class Space(BaseModel):
    """Choices of a search besides the candidates' prompts; a choice of one value is fixed.

    Attributes:
        families: Names of programs (`listwise`, `pointwise`, ...).
        weights: Fusion weights.
        models: Model strings by role; other roles keep their own model.
        temperatures: Sampling temperatures by role; other roles keep their own.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    families: tuple[str, ...] = Field(min_length=1)
    weights: tuple[Share, ...] = (DEFAULT_WEIGHT,)
    models: dict[RoleName, tuple[str, ...]] = {}
    temperatures: dict[RoleName, tuple[Temperature, ...]] = {}


class Configuration(BaseModel):
    """One point of a search space.

    Attributes:
        family: Name of the program.
        demos: Name of the demo set by pool (see `Candidates`).
        wordings: Name of the instruction set by pool.
        weight: Fusion weight.
        gate: Fitted in the final round, in place of the weight.
        models, temperatures: By role, if they are searched over.
        prototypes: Of the program `encoder`, if they are searched over.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    demos: dict[str, str] = {}
    wordings: dict[str, str] = {}
    weight: float = DEFAULT_WEIGHT
    gate: Gate | None = Field(default=None, exclude_if=lambda gate: gate is None)
    models: dict[RoleName, str] = {}
    temperatures: dict[RoleName, float] = {}
    prototypes: Prototypes | None = Field(default=None, exclude_if=lambda prototypes: prototypes is None)


def uncompiled(space: Space) -> Configuration:
    """The uncompiled program: the first program with the first of every choice."""
    return Configuration(
        family=space.families[0],
        weight=min(space.weights, key=lambda weight: abs(weight - DEFAULT_WEIGHT)),
        models={role: models[0] for role, models in space.models.items()},
        temperatures={role: values[0] for role, values in space.temperatures.items()},
    )


def parameters(configuration: Configuration, candidates: Candidates) -> dict[str, object]:
    """Optuna parameters of a configuration, named as in `suggest`; modules without a choice have original prompts."""
    named: dict[str, object] = {"family": configuration.family, "fusion_weight": configuration.weight}
    for module in candidates.of(configuration.family):
        named[f"{module}_demos"] = configuration.demos.get(module, ORIGINAL)
        named[f"{module}_wording"] = configuration.wordings.get(module, ORIGINAL)
    named |= {f"{role}_model": model for role, model in configuration.models.items()}
    return named | {f"{role}_temperature": value for role, value in configuration.temperatures.items()}


def chosen_prompts(configuration: Configuration, candidates: Candidates) -> Prompts:
    """The prompts that a configuration names."""
    chosen: Prompts = {}
    for module, demos in configuration.demos.items():
        chosen |= candidates.modules[module].prompts(demos, configuration.wordings.get(module, ORIGINAL))
    return chosen


def suggest(trial: optuna.Trial, space: Space, candidates: Candidates) -> Configuration:
    """A configuration chosen by a trial; its parameters are `mope_demos`, `listwise_wording`, `mar_model`, ..."""
    program = _choice(trial, "family", space.families)
    pools = candidates.of(program)
    return Configuration(
        family=program,
        demos={
            module: _choice(trial, f"{module}_demos", tuple(demo_set.name for demo_set in pool.demos))
            for module, pool in pools.items()
        },
        wordings={
            module: _choice(trial, f"{module}_wording", tuple(instructions.name for instructions in pool.wordings))
            for module, pool in pools.items()
        },
        weight=_choice(trial, "fusion_weight", space.weights),
        models={role: _choice(trial, f"{role}_model", models) for role, models in space.models.items()},
        temperatures={
            role: _choice(trial, f"{role}_temperature", values) for role, values in space.temperatures.items()
        },
    )


def _choice(trial: optuna.Trial, name: str, values: tuple[ChoiceT, ...]) -> ChoiceT:
    # Parameters with one value are left out of the Optuna study.
    return values[0] if len(values) == 1 else trial.suggest_categorical(name, values)


class ProgramBuilder:
    """Builds programs from configurations; all of them share catalogue, prior, stores, ledger and clients.

    Args:
        parts: Parts of the uncompiled program.
        candidates: The prompts that configurations name.
        start: Prompts of a compiled program that this compile goes on from, in place of the original ones.
    """

    def __init__(
        self, parts: Parts, candidates: Candidates | None = None, start: Mapping[str, Prompt] | None = None
    ) -> None:
        self.parts = parts
        self.start = start or {}
        self.candidates = candidates or Candidates(modules={})
        self._backends: dict[str, Backends] = {parts.backends.roles.model_dump_json(): parts.backends}

    def roles(self, configuration: Configuration) -> Roles:
        """Models and settings of the roles in a configuration."""
        roles = self.parts.backends.roles.with_models(**configuration.models)
        changed: dict[str, RoleConfig] = {
            role: roles.of(role).model_copy(update={"temperature": temperature})
            for role, temperature in configuration.temperatures.items()
            if roles.of(role).temperature is not None  # reasoning models reject one
        }
        return roles.model_copy(update=changed)

    def require(self, space: Space) -> None:
        """Check, before anything is paid for, that all models of a space can be used and priced.

        Raises:
            InputError: naming role and model.
        """
        for role, models in space.models.items():
            for model in models:
                self._backends_of(self.parts.backends.roles.with_models(**{role: model})).require(role)

    def prompts(self, configuration: Configuration) -> Prompts:
        """The prompts that a configuration names."""
        return chosen_prompts(configuration, self.candidates)

    def program(self, configuration: Configuration, prompts: Mapping[str, Prompt] | None = None) -> MLLM3Rec:
        """The program of a configuration.

        Args:
            prompts: In place of those that the configuration names.
        """
        parts = replace(
            self.parts,
            backends=self._backends_of(self.roles(configuration)),
            fusion=Fusion(configuration.weight, self.parts.fusion.head, configuration.gate),
            prototypes=configuration.prototypes,
        )
        chosen = self.prompts(configuration) if prompts is None else prompts
        return with_prompts(PROGRAMS[configuration.family](parts), {**self.start, **chosen})

    def _backends_of(self, roles: Roles) -> Backends:
        key = roles.model_dump_json()
        if key not in self._backends:
            self._backends[key] = self.parts.backends.with_roles(roles)
        return self._backends[key]
