"""Choice of a batch interface by model string."""

from __future__ import annotations

from programs.batch.anthropic_form import AnthropicForm
from programs.batch.openai_form import OpenAIForm
from programs.batch.provider import Provider
from programs.lm.endpoints import credentials, is_server, key_variable, require_listening
from programs.lm.roles import RoleConfig
from programs.runtime.errors import InputError

FILE = "file"
"""In place of a provider's dialect: the questions are written to a file for somebody else to answer."""


def dialect_of(model: str) -> str:
    """Name of the dialect in which a model takes batches.

    Raises:
        InputError: if there is none, or we do not speak it.

    >>> dialect_of("http://localhost:4000/v1#any"), dialect_of("openai/gpt-6-luna"), dialect_of("anthropic/claude")
    ('openai', 'openai', 'anthropic')
    """
    if is_server(model) or model.startswith("openai/"):
        return "openai"
    if model.startswith("anthropic/"):
        return "anthropic"
    raise InputError(
        f"model {model[:200]!r}: no batch interface for it here; batches work with openai/..., anthropic/... and "
        "servers of OpenAI's form (http://host:port/v1#model); put a LiteLLM proxy in front of it, or leave out --via"
    )


def connect_provider(address: str, model: str, variable: str | None) -> Provider:
    """The batch interface at an address, with the key of the model.

    Args:
        variable: Environment variable with the key; None for the model's own.

    Raises:
        InputError: if there is no such interface, nothing listens there, or the key is missing.
    """
    dialect: type[OpenAIForm] | type[AnthropicForm] = OpenAIForm if dialect_of(model) == "openai" else AnthropicForm
    if is_server(model):
        require_listening(model)
    key = credentials(RoleConfig(model=model, api_key_env=variable)).get("api_key")
    return dialect(address, key, variable or key_variable(model))
