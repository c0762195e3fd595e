"""Choice of a batch interface by model string."""

from __future__ import annotations

from programs.batch.anthropic_form import AnthropicForm
from programs.batch.google_form import GoogleForm
from programs.batch.openai_form import OpenAIForm
from programs.batch.provider import Provider
from programs.lm.endpoints import credentials, is_server, key_variable, require_listening
from programs.lm.roles import RoleConfig
from programs.runtime.errors import InputError

_Form = type[OpenAIForm] | type[AnthropicForm] | type[GoogleForm]
_FORMS: dict[str, _Form] = {"openai": OpenAIForm, "anthropic": AnthropicForm, "gemini": GoogleForm}
"""By the provider in a model string."""

FILE = "file"
"""In place of a provider's dialect: the questions are written to a file for somebody else to answer."""


def dialect_of(model: str) -> str:
    """Name of the dialect in which a model takes batches.

    Raises:
        InputError: if there is none, or we do not speak it.

    >>> dialect_of("http://localhost:4000/v1#any"), dialect_of("anthropic/claude"), dialect_of("gemini/gemini-flash")
    ('openai', 'anthropic', 'google')
    """
    return _form_for(model).name


def _form_for(model: str) -> _Form:
    form = OpenAIForm if is_server(model) else _FORMS.get(model.partition("/")[0])
    if form is None:
        raise InputError(
            f"model {model[:200]!r}: no batch interface for it here; batches work with openai/..., anthropic/..., "
            "gemini/... and servers of OpenAI's form (http://host:port/v1#model); put a LiteLLM proxy in front of it, "
            "or leave out --via"
        )
    return form


def connect_provider(address: str, model: str, variable: str | None) -> Provider:
    """The batch interface at an address, with the key of the model.

    Args:
        variable: Environment variable with the key; None for the model's own.

    Raises:
        InputError: if there is no such interface, nothing listens there, or the key is missing.
    """
    form = _form_for(model)
    if is_server(model):
        require_listening(model)
    key = credentials(RoleConfig(model=model, api_key_env=variable)).get("api_key")
    return form(address, key, variable or key_variable(model))
