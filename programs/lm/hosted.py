"""Client of hosted models for `dspy.LM`: DSPy's native engine with our deadline, and without redirects."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import dspy
from dspy.clients.engines.lm15_engine import LM15Engine
from dspy.lm15 import CacheConfig, Request, Response, RouterConfig, UnknownModelError, UnsupportedFeatureError

from programs.lm.capability_hints import CapabilityHints
from programs.lm.chat_body import sound_body
from programs.lm.checked_answer import checked_answer
from programs.lm.keys import no_key_in_errors
from programs.lm.refused_parameters import RefusedParameters
from programs.lm.transport import Transport
from programs.runtime.errors import InputError

_ANTHROPIC_VERSION = "/v1"
"""End of the address of Anthropic's interface."""


class HostedEngine(CapabilityHints):
    """Sends requests to one model of a provider that DSPy's native engine knows.

    Attributes:
        refused: Parameters that the provider refused.
        transport: What brings requests there.
        key: Of the provider; None if DSPy's client reads it from the environment.
        empty_answers: An answer without text is a failure of the provider.

    Args:
        model: `provider/model`.
        timeout: Seconds one attempt may take.
        api_key: Of the provider.
        address: Of a gateway in front of it, see `gateway`; None for its own.

    Raises:
        UnknownModelError, UnsupportedFeatureError: if DSPy's native engine does not know the provider.
    """

    empty_answers = False

    def __init__(self, model: str, timeout: float, api_key: str | None = None, address: str | None = None) -> None:
        super().__init__(dspy.LM(model, engine="lm15"))
        provider = LM15Engine(RouterConfig(env={})).resolve(model).provider
        # Keys of providers that we do not know are read by DSPy, from the variables it documents.
        self.transport = Transport(address or "", timeout, sound_body)
        config = RouterConfig(
            api_keys=None if api_key is None else {provider: api_key},
            base_urls=None if address is None else {provider: address},
            transport=self.transport,
        )
        self._engine = LM15Engine(config)
        self.key = api_key
        self._provider = provider
        self.refused = RefusedParameters()

    def complete(self, request: Request) -> Response:
        """One attempt. Raises `LM15Error` if it fails."""
        with no_key_in_errors(self.key):
            return self.refused.complete(self._answer, self.prepared(request))

    def _answer(self, request: Request) -> Response:
        return checked_answer(lambda: self._engine.complete(request))

    def provider(self, request: Request) -> tuple[Any, Request]:
        """DSPy's client of the provider, which writes bodies and reads answers, and the request with its model."""
        target: tuple[Any, Request] = self._engine._target(request)
        return target

    def prepared(self, request: Request) -> Request:
        """The request with what Anthropic's models must be told, and other providers do by themselves.

        The static part of the prompt, instruction and demos, is marked for their prompt cache. "Do not think" is said:
        DSPy's client leaves the field out, and some of the models think unless they are told not to.
        """
        if self._provider != "anthropic":
            return request
        last_demo = len(request.messages) - 2
        cache = CacheConfig(prefix="stable") if last_demo < 0 else CacheConfig(prefix_until_index=last_demo)
        config = replace(request.config, cache=cache)
        if config.reasoning is not None and config.reasoning.is_off:
            extensions = {**(config.extensions or {}), "thinking": {"type": "disabled"}}
            config = replace(config, reasoning=None, extensions=extensions)
        return replace(request, config=config)


def is_known(model: str) -> bool:
    """Whether DSPy's native engine knows the provider of a model; it knows the others through LiteLLM only."""
    try:
        LM15Engine(RouterConfig(env={})).resolve(model)
    except (UnknownModelError, UnsupportedFeatureError):
        return False
    return True


def gateway(model: str) -> str | None:
    """The address of a gateway in front of the provider, by the variables that its own clients read; None without.

    Anthropic's own clients take it without `/v1`, which DSPy's address of the provider has: it is added.

    Raises:
        InputError: naming the variable, if it is no address, or holds what messages must not show: a user name, a
            password or a query.
    """
    provider = model.partition("/")[0].upper()
    variables = (f"{provider}_BASE_URL", f"{provider}_API_BASE")
    variable = next((name for name in variables if os.environ.get(name)), None)
    if variable is None:
        return None
    address = os.environ[variable]
    try:
        parts = urlsplit(address)
        sound = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:
        sound = False
    if not sound or parts.username or parts.password or parts.query:
        raise InputError(
            f"the environment variable {variable}: write the address of a gateway as https://host/path, without a user "
            "name, a password or a query"
        )
    if provider == "ANTHROPIC" and not parts.path.rstrip("/").endswith(_ANTHROPIC_VERSION):
        return address.rstrip("/") + _ANTHROPIC_VERSION
    return address
