"""What a search may choose, what it chose, and the program that makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, TypeVar

import optuna
from pydantic import BaseModel, ConfigDict, Field

from optimize.candidates import ORIGINAL, Candidates
from optimize.prompts import Prompt, Prompts, with_prompts
from programs.lm.backends import Backends
from programs.lm.roles import RoleConfig, RoleName, Roles
from programs.program import DEFAULT_WEIGHT, PROGRAMS, Fusion, MLLM3Rec, Parts

ChoiceT = TypeVar("ChoiceT", str, float)
Share = Annotated[float, Field(ge=0, le=1)]
Temperature = Annotated[float, Field(ge=0, le=2)]

MODULES = ("mope", "mote", "mar")


class Space(BaseModel):
    """What a search may vary besides the prompts in its pools. What has one value only is fixed.

    Attributes:
        families: Compositions by name (`listwise`, `pointwise`, ...): MAR's ranking family.
        weights: Fusion weights.
        models: Model strings per role; a role that is not named keeps its own.
        temperatures: Sampling temperatures per role, likewise.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    families: tuple[str, ...] = Field(min_length=1)
    weights: tuple[Share, ...] = (DEFAULT_WEIGHT,)
    models: dict[RoleName, tuple[str, ...]] = {}
    temperatures: dict[RoleName, tuple[Temperature, ...]] = {}


class Configuration(BaseModel):
    """One point of a space.

    Attributes:
        demos: Name of the demonstration set, by module (see `Candidates`).
        wordings: Name of the instructions, by module.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    family: str
    demos: dict[str, str] = {}
    wordings: dict[str, str] = {}
    weight: float = DEFAULT_WEIGHT
    models: dict[RoleName, str] = {}
    temperatures: dict[RoleName, float] = {}


def modules_of(family: str, pools: Candidates) -> list[str]:
    """The modules of a family that have prompts."""
    return [module for module in ("mope", "mote", family) if module in pools.modules]


def uncompiled(space: Space) -> Configuration:
    """The program as it was written, in the first family with the first of every choice."""
    return Configuration(
        family=space.families[0],
        weight=min(space.weights, key=lambda weight: abs(weight - DEFAULT_WEIGHT)),
        models={role: models[0] for role, models in space.models.items()},
        temperatures={role: values[0] for role, values in space.temperatures.items()},
    )


def parameters(configuration: Configuration, pools: Candidates) -> dict[str, object]:
    """The parameters by which `suggest` names a configuration; what it does not name is the original."""
    named: dict[str, object] = {"family": configuration.family, "fusion_weight": configuration.weight}
    for module in modules_of(configuration.family, pools):
        named[f"{module}_demos"] = configuration.demos.get(module, ORIGINAL)
        named[f"{module}_wording"] = configuration.wordings.get(module, ORIGINAL)
    named |= {f"{role}_model": model for role, model in configuration.models.items()}
    return named | {f"{role}_temperature": value for role, value in configuration.temperatures.items()}


def chosen_prompts(configuration: Configuration, pools: Candidates) -> Prompts:
    """The prompts that a configuration names, of the modules it names."""
    chosen: Prompts = {}
    for module, demos in configuration.demos.items():
        chosen |= pools.modules[module].prompts(demos, configuration.wordings.get(module, ORIGINAL))
    return chosen


def suggest(trial: optuna.Trial, space: Space, pools: Candidates) -> Configuration:
    """Let a trial choose; parameters are named `mope_demos`, `listwise_wording`, `mar_model`, ..."""
    family = _choice(trial, "family", space.families)
    modules = modules_of(family, pools)
    return Configuration(
        family=family,
        demos={m: _choice(trial, f"{m}_demos", tuple(one.name for one in pools.modules[m].demos)) for m in modules},
        wordings={
            m: _choice(trial, f"{m}_wording", tuple(one.name for one in pools.modules[m].wordings)) for m in modules
        },
        weight=_choice(trial, "fusion_weight", space.weights),
        models={role: _choice(trial, f"{role}_model", models) for role, models in space.models.items()},
        temperatures={
            role: _choice(trial, f"{role}_temperature", values) for role, values in space.temperatures.items()
        },
    )


def _choice(trial: optuna.Trial, name: str, values: tuple[ChoiceT, ...]) -> ChoiceT:
    # A parameter without a choice would only blur the study.
    return values[0] if len(values) == 1 else trial.suggest_categorical(name, values)


class Assembly:
    """Builds programs from configurations; all of them share catalogue, prior, stores, ledger and clients.

    Args:
        parts: With the roles as configured.
        pools: Where the prompts come from.
    """

    def __init__(self, parts: Parts, pools: Candidates | None = None) -> None:
        self.parts = parts
        self.pools = pools or Candidates(modules={})
        self._backends: dict[str, Backends] = {parts.backends.roles.model_dump_json(): parts.backends}

    def roles(self, configuration: Configuration) -> Roles:
        """The roles a configuration speaks through."""
        roles = self.parts.backends.roles.with_models(**configuration.models)
        warmer: dict[str, RoleConfig] = {
            role: roles.of(role).model_copy(update={"temperature": temperature})
            for role, temperature in configuration.temperatures.items()
            if roles.of(role).temperature is not None  # a reasoning model refuses any
        }
        return roles.model_copy(update=warmer)

    def require(self, space: Space) -> None:
        """Refuse models that cannot be asked or priced before anything is paid for.

        Raises:
            InputError: naming role and model.
        """
        for role, models in space.models.items():
            for model in models:
                self._backends_of(self.parts.backends.roles.with_models(**{role: model})).require(role)

    def prompts(self, configuration: Configuration) -> Prompts:
        """The prompts a configuration names."""
        return chosen_prompts(configuration, self.pools)

    def program(self, configuration: Configuration, prompts: Mapping[str, Prompt] | None = None) -> MLLM3Rec:
        """The program of a configuration.

        Args:
            prompts: Instead of those the configuration names.
        """
        parts = replace(
            self.parts,
            backends=self._backends_of(self.roles(configuration)),
            fusion=Fusion(weight=configuration.weight, head=self.parts.fusion.head),
        )
        chosen = self.prompts(configuration) if prompts is None else prompts
        return with_prompts(PROGRAMS[configuration.family](parts), chosen)

    def _backends_of(self, roles: Roles) -> Backends:
        key = roles.model_dump_json()
        if key not in self._backends:
            self._backends[key] = self.parts.backends.with_roles(roles)
        return self._backends[key]
