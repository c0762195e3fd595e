"""Model configuration per role: model, sampling and adapter (paper, section 4.2)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from programs.lm.adapters import AdapterName

RoleName = Literal["mope", "mote", "mar", "judge"]
ROLE_NAMES: tuple[RoleName, ...] = ("mope", "mote", "mar", "judge")

GIVEN = "dspy:"
"""Before the model string of a `dspy.LM` object that was given instead of a name: it brings its own key and address."""


class RoleConfig(BaseModel):
    """One role's backend. Never holds a key: keys come from the environment.

    Attributes:
        model: One of
            `openai/gpt-4o` and whatever else DSPy can reach by name;
            `http://host:port/v1#name` for an OpenAI-compatible server (Ollama, vLLM, LM Studio, llama.cpp);
            `gguf:/path/model.gguf` for a file;
            `local/smollm2-135m` for weights brought by `mllm3rec models fetch`;
            `dspy:NAME` for a `dspy.LM` object that was given in Python.
        adapter: How signatures become messages; part of what a compiled program is.
        temperature: 0 to 2, or None to leave it to the server (reasoning models refuse other values).
        top_p: 0 to 1, or None.
        max_tokens: Most tokens of one answer.
        terse: Cap each answer at what a valid one of its kind needs; for small models, which do not stop by
            themselves. Of a truncated answer the complete list elements are read.
        logprobs: Read ratings from token probabilities where the backend gives them.
        api_key_env: Environment variable with the key, for servers that want one.
        timeout: Seconds one call may take.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1)
    adapter: AdapterName = "json"
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    terse: bool = False
    logprobs: bool = True
    api_key_env: str | None = None
    timeout: float = Field(default=600.0, gt=0)

    @property
    def is_local(self) -> bool:
        """Whether the model runs on this machine's own engine: no price, no key, one call at a time."""
        return self.model.startswith(("local/", "gguf:"))


class Roles(BaseModel):
    """A backend for every role.

    Attributes:
        mope: Infers and reassesses motivation profiles.
        mote: Distils products into traits.
        mar: Rates, ranks and explains.
        judge: Re-checks MAR's reasons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mope: RoleConfig
    mote: RoleConfig
    mar: RoleConfig
    judge: RoleConfig

    @classmethod
    def all_on(cls, config: RoleConfig) -> Roles:
        """Every role on one backend."""
        return cls.model_validate(dict.fromkeys(ROLE_NAMES, config))

    def of(self, role: RoleName) -> RoleConfig:
        """The configuration of one role."""
        config: RoleConfig = getattr(self, role)
        return config

    def with_models(self, **models: str | None) -> Roles:
        """A copy with other models in the named roles; None leaves a role as it is.

        A model of another kind brings what its kind needs: the `compact` adapter for one on this machine or on a
        server, `json` else; OpenAI's reasoning models refuse a temperature, small token limits and log-probabilities.
        """
        changed = {}
        for role, model in models.items():
            if model is not None:
                config = getattr(self, role).model_copy(update={"model": model})
                changed[role] = config.model_copy(update=_policy(model, config.is_local or model.startswith("http")))
        return self.model_copy(update=changed)


def _policy(model: str, own: bool) -> dict[str, object]:
    if own:
        return {"adapter": "compact", "terse": True}
    plain = {"adapter": "json", "terse": False}
    if re.match(r"openai/(o\d|gpt-5)", model):
        return {**plain, "temperature": None, "top_p": None, "max_tokens": 16000, "logprobs": False}
    return plain


def _all(model: str, adapter: AdapterName, **settings: object) -> Roles:
    return Roles.all_on(RoleConfig.model_validate({"model": model, "adapter": adapter, **settings}))


def local_roles(model: str | Path = "local/smollm2-135m") -> Roles:
    """Every role on one model of this machine, greedy decoding."""
    name = f"gguf:{model}" if isinstance(model, Path) else model
    return _all(name, "compact", max_tokens=512, terse=True)


PAPER = Roles(
    mope=RoleConfig(model="openai/gpt-3.5-turbo", adapter="chat", temperature=1.0, top_p=1.0, max_tokens=1024),
    mote=RoleConfig(model="openai/gpt-3.5-turbo", adapter="chat", temperature=0.9, top_p=0.9, max_tokens=4095),
    mar=RoleConfig(model="openai/gpt-4o", temperature=0.9, top_p=0.9, max_tokens=1024),
    judge=RoleConfig(model="openai/gpt-4o", temperature=0.9, top_p=0.9, max_tokens=1024),
)
"""The published models and decoding settings. OpenAI retired gpt-3.5-turbo in October 2026: kept for its prices."""

HOSTED = Roles(
    mope=RoleConfig(model="openai/gpt-4.1-mini", max_tokens=1024),
    mote=RoleConfig(model="openai/gpt-4.1-mini", max_tokens=512),
    mar=RoleConfig(model="openai/gpt-4.1", max_tokens=1024),
    judge=RoleConfig(model="openai/gpt-4.1-mini", max_tokens=512),
)
"""Hosted models of late 2026 that give token log-probabilities: the cheap one for the modules the paper found cheap."""

PRESETS: dict[str, Roles] = {"local": local_roles(), "hosted": HOSTED, "paper": PAPER}
