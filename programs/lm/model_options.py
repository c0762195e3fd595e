"""Model options: a preset, a model for all roles, and models for single roles, resolved into `Roles`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import dspy
from pydantic import ValidationError

from programs.lm.decoding import decoding_policy
from programs.lm.roles import GIVEN, PRESETS, ROLE_NAMES, RoleConfig, RoleName, Roles
from programs.runtime.errors import InputError, input_error, listed

Model: TypeAlias = "str | dspy.LM"
"""A model string, see `RoleConfig.model`, or a `dspy.LM` object."""


@dataclass(frozen=True)
class ModelOptions:
    """The models of a run, as given by the user.

    Attributes:
        preset: A name of `PRESETS`; None for `local`.
        model: Replaces the model of every role.
        mope, mote, mar, judge: Replace the model of one role; the judge's is MAR's unless given.
        timeout: Seconds one call may take, for every role; None for what the roles say.
        max_tokens: Most tokens of one answer, for every role, instead of what a valid answer needs.
    """

    preset: str | None = None
    model: Model | None = None
    mope: Model | None = None
    mote: Model | None = None
    mar: Model | None = None
    judge: Model | None = None
    timeout: float | None = None
    max_tokens: int | None = None

    def roles(self) -> Roles:
        """The roles these options describe.

        Raises:
            InputError: if there is no such preset.
        """
        preset = "local" if self.preset is None else self.preset
        if preset not in PRESETS:
            raise InputError(f"no preset {preset!r}: choose one of {', '.join(PRESETS)}")
        return self.over(PRESETS[preset])

    def over(self, roles: Roles) -> Roles:
        """`roles` with the given models in place of theirs; the preset is ignored.

        Raises:
            InputError: if the timeout or the tokens cannot be.
        """
        named = {role: self.of(role) for role in ROLE_NAMES}
        roles = roles.with_models(**{role: _string(model) for role, model in named.items()})
        changed: dict[str, RoleConfig] = {
            role: roles.of(role).model_copy(update=_sampling(model))
            for role, model in named.items()
            if model is not None and not isinstance(model, str)
        }
        roles = roles.model_copy(update=changed)
        if limits := self._limits():
            try:
                changed = {role: RoleConfig.model_validate(roles.of(role).model_dump() | limits) for role in ROLE_NAMES}
            except ValidationError as error:
                raise input_error("options", error) from None
            roles = roles.model_copy(update=changed)
        return roles

    def _limits(self) -> dict[str, object]:
        timeout: dict[str, object] = {} if self.timeout is None else {"timeout": self.timeout}
        return timeout if self.max_tokens is None else timeout | {"max_tokens": self.max_tokens, "terse": False}

    def of(self, role: RoleName) -> Model | None:
        """The model given for a role, or None."""
        own: Model | None = getattr(self, role)
        if own is None and role == "judge":
            own = self.mar
        return self.model if own is None else own

    @property
    def given(self) -> dict[str, dspy.LM]:
        """The `dspy.LM` objects among the models, by model string.

        Raises:
            InputError: if two objects with one name differ in their settings: later on models are told apart by name.
        """
        found: dict[str, dspy.LM] = {}
        for model in map(self.of, ROLE_NAMES):
            if model is None or isinstance(model, str):
                continue
            if different := _differences(model, found.setdefault(f"{GIVEN}{model.model}", model)):
                raise InputError(
                    f"two dspy.LM objects are called {model.model!r} and differ in {listed(different)}: models are "
                    "told apart by their names; give one object for all roles on this model"
                )
        return found

    @property
    def names(self) -> frozenset[str]:
        """Model strings of the given models."""
        return frozenset(str(_string(model)) for model in map(self.of, ROLE_NAMES) if model is not None)


def _string(model: Model | None) -> str | None:
    if model is None or isinstance(model, str):
        return model
    return f"{GIVEN}{model.model}"


def _differences(one: dspy.LM, other: dspy.LM) -> list[str]:
    """Names of the settings in which two objects differ; their values may be keys."""
    if one is other:
        return []
    settings, others = ({**lm.kwargs, "model_type": lm.model_type, "engine": lm._engine_spec} for lm in (one, other))
    return sorted(name for name in settings.keys() | others.keys() if settings.get(name) != others.get(name))


def _sampling(model: dspy.LM) -> dict[str, object]:
    # The object's own sampling is used; recorded, so that a run with other sampling counts as another run.
    # A reasoning model has the one temperature that it takes: none is sent with a call.
    refused = decoding_policy(model.model)
    sampling = {name: model.kwargs.get(name) for name in ("temperature", "top_p") if name not in refused}
    most = model.kwargs.get("max_completion_tokens") or model.kwargs.get("max_tokens")
    return sampling | ({"max_tokens": most} if most else {})
