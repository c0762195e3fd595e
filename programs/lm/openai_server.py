"""OpenAI-compatible client for `dspy.LM`: a server of the user's own, or the engine in this process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from dspy.lm15 import (
    AccessPolicy,
    LMRouter,
    OpenAIChatCompat,
    ProviderDefinition,
    Request,
    Response,
    RouterConfig,
    ServerError,
    Timeouts,
)

CONNECTIONS = 1024
"""More than a rate limiter allows: calls wait in the limiter, where Ctrl-C interrupts them, never for a socket."""


class ServerEngine:
    """Sends requests to one model of one server.

    DSPy looks up for every call which engine a model string needs and what it supports; doing that once saves CPU time
    (benchmarks/throughput.py). No streaming, and no saving with a program: our programs do not need them.

    Attributes:
        supports_response_schema: DSPy's capability hints, read by its adapters: the server constrains its answers to
            a JSON schema.
        supported_params: What adapters may add to a call.

    Args:
        name: `provider/model`, as `dspy.LM` gets it.
        base_url: Up to and without `/chat/completions`.
        timeout: Seconds until the next byte must have come.
        api_key: For servers that need one.
    """

    supports_response_schema = True
    supported_params = frozenset({"response_format", "logprobs", "top_logprobs", "temperature", "top_p", "max_tokens"})

    def __init__(self, name: str, base_url: str, timeout: float, api_key: str | None = None) -> None:
        provider, _, self._model = name.partition("/")
        definition = ProviderDefinition.chat(
            AccessPolicy(provider=provider, base_url=base_url),
            compat=OpenAIChatCompat.preset("lmstudio"),
            placeholder_key="none",
        )
        config = RouterConfig(
            api_keys=None if api_key is None else {provider: api_key},
            env={},
            providers=(definition,),
            timeouts=Timeouts(read=timeout, write=timeout, pool=timeout),
            max_connections=CONNECTIONS,
        )
        self._server = LMRouter(config).lm(f"{provider}:{self._model}")

    def complete(self, request: Request) -> Response:
        """One attempt.

        Raises:
            LM15Error: if the call fails, or the server answers without a message of the model, as some do that report
                an error with status 200; DSPy converts it to its own errors.
        """
        try:
            response = self._server.complete(replace(request, model=self._model))
        except TypeError as error:  # The body is JSON, but no object.
            raise ServerError(str(error)) from error
        if not _has_message(response.provider_data):
            body = json.dumps(dict(response.provider_data or {}), ensure_ascii=False)
            raise ServerError(f"the server answered with status 200, but without a message of the model: {body[:200]}")
        return response


def _has_message(body: Mapping[str, Any] | None) -> bool:
    choices = (body or {}).get("choices")
    return isinstance(choices, (list, tuple)) and any(isinstance(c, Mapping) and c.get("message") for c in choices)
