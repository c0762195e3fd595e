"""Model configuration per role: model, sampling and adapter (paper, section 4.2)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from programs.lm.adapters import AdapterName
from programs.lm.decoding import Effort, decoding_policy

RoleName = Literal["mope", "mote", "mar", "judge"]
ROLE_NAMES: tuple[RoleName, ...] = ("mope", "mote", "mar", "judge")

GIVEN = "dspy:"
"""Prefix of the model string of a `dspy.LM` object, which has its own key and address."""


class RoleConfig(BaseModel):
    """Model and settings of one role. Never holds a key: keys come from the environment.

    Attributes:
        model: One of
            `openai/gpt-4o` or any other hosted model that DSPy knows by name;
            `http://host:port/v1#name` for an OpenAI-compatible server (Ollama, vLLM, LM Studio, llama.cpp);
            `gguf:/path/model.gguf` for a file;
            `local/smollm2-135m` for weights fetched by `mllm3rec models fetch`;
            `dspy:NAME` for a `dspy.LM` object passed in Python.
        adapter: Renders signatures as messages; part of a compiled program.
        temperature: 0 to 2, or None to leave it to the server (reasoning models refuse other values).
        top_p: 0 to 1, or None.
        max_tokens: Most tokens of one answer.
        terse: Limit each answer to the tokens a valid one needs; for small models, which do not stop by themselves.
            Of a truncated answer the complete list elements are read.
        logprobs: Read ratings from token probabilities if the backend returns them.
        api_key_env: Environment variable with the key, for servers that need one.
        effort: How much a reasoning model thinks before it answers; None to leave it to the model.
        timeout: Seconds one call may take.
        deterministic: Whether a model on this machine answers the same question always alike (`LocalEngine.serve`), at
            about a third of the speed. Answers are kept under the same keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    model: str = Field(min_length=1)
    adapter: AdapterName = "json"
    temperature: float | None = Field(default=0.0, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    max_tokens: int = Field(default=512, ge=1)
    terse: bool = False
    logprobs: bool = True
    api_key_env: str | None = None
    effort: Effort | None = Field(default=None, exclude_if=lambda effort: effort is None)
    timeout: float = Field(default=600.0, gt=0)
    deterministic: bool = Field(default=False, exclude_if=lambda value: not value)

    @property
    def is_local(self) -> bool:
        """Whether the model runs on this machine's own engine: no price, no key, one call at a time."""
        return self.model.startswith(("local/", "gguf:"))


class Roles(BaseModel):
    """Model and settings of every role.

    Attributes:
        mope: Infers and reassesses motivation profiles.
        mote: Distils items into traits.
        mar: Rates, ranks and explains.
        judge: Checks MAR's reasons.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    mope: RoleConfig
    mote: RoleConfig
    mar: RoleConfig
    judge: RoleConfig

    @classmethod
    def all_on(cls, config: RoleConfig) -> Roles:
        """The same configuration for every role."""
        return cls.model_validate(dict.fromkeys(ROLE_NAMES, config))

    def of(self, role: RoleName) -> RoleConfig:
        """The configuration of one role."""
        config: RoleConfig = getattr(self, role)
        return config

    def deterministic(self, value: bool = True) -> Roles:
        """A copy in which every model on this machine answers deterministically, or as fast as it can."""
        changed: dict[str, RoleConfig] = {
            role: self.of(role).model_copy(update={"deterministic": value}) for role in ROLE_NAMES
        }
        return self.model_copy(update=changed)

    def with_models(self, **models: str | None) -> Roles:
        """A copy with other models in the named roles; None leaves a role as it is.

        Adapter and limits follow the kind of model: the `compact` adapter for one on this machine or on a server, else
        `json`, with the decoding policy of the model's family (`decoding_policy`).
        """
        changed = {}
        for role, model in models.items():
            if model is not None:
                config: RoleConfig = getattr(self, role)
                usual = {name: getattr(getattr(_SHORT, role), name) for name in _policy(config.model)}
                changed[role] = config.model_copy(update={**usual, "model": model, **_policy(model)})
        return self.model_copy(update=changed)


_OF_OBJECTS = ("temperature", "top_p", "logprobs")
"""Of a decoding policy, what holds for the calls of a `dspy.LM` object too; the rest is the object's own."""


def _policy(model: str) -> dict[str, object]:
    if model.startswith(("local/", "gguf:", "http")):
        return {"adapter": "compact", "terse": True}
    policy = decoding_policy(model.removeprefix(GIVEN))
    if model.startswith(GIVEN):
        policy = {name: value for name, value in policy.items() if name in _OF_OBJECTS}
    return {"adapter": "json", "terse": False, **policy}


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

_SHORT = Roles(
    mope=RoleConfig(model="-", max_tokens=1024),
    mote=RoleConfig(model="-", max_tokens=512),
    mar=RoleConfig(model="-", max_tokens=1024),
    judge=RoleConfig(model="-", max_tokens=512),
)

HOSTED_CHEAP = _SHORT.with_models(**dict.fromkeys(ROLE_NAMES, "openai/gpt-6-luna"))
"""One small hosted model of late 2026 in every role, which answers without thinking first."""

HOSTED = HOSTED_CHEAP.with_models(mar="openai/gpt-6.1-terra")
"""Hosted models of late 2026: a larger one for MAR."""

PRESETS: dict[str, Roles] = {
    "local": local_roles(),
    "hosted": HOSTED,
    "hosted-cheap": HOSTED_CHEAP,
    "paper": PAPER,
}
