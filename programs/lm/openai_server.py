"""OpenAI-compatible client for `dspy.LM`: a server of the user's own, or the engine in this process."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from dspy.lm15 import (
    AccessPolicy,
    LMRouter,
    OpenAIChatCompat,
    ProviderDefinition,
    Request,
    Response,
    RouterConfig,
)

from programs.lm.chat_body import sound_body
from programs.lm.keys import no_key_in_errors
from programs.lm.refused_parameters import RefusedParameters
from programs.lm.transport import Transport


class ServerEngine:
    """Sends requests to one model of one server.

    DSPy looks up for every call which engine a model string needs and what it supports; doing that once saves CPU time
    (benchmarks/throughput.py). No streaming, and no saving with a program: our programs do not need them.

    Attributes:
        supports_response_schema: DSPy's capability hints, read by its adapters: the server constrains its answers to
            a JSON schema.
        supported_params: What adapters may add to a call.
        refused: Parameters that this server refused.
        transport: What brings requests there.
        key: Its key; empty if it needs none.
        empty_answers: Whether an answer without text is the model's own.

    Args:
        name: `provider/model`, as `dspy.LM` gets it.
        base_url: Up to and without `/chat/completions`.
        timeout: Seconds one attempt may take.
        api_key: For servers that need one.
        empty_answers: Whether an answer without text is the model's own, and no failure of the server.
    """

    supports_response_schema = True
    supported_params = frozenset({"response_format", "logprobs", "top_logprobs", "temperature", "top_p", "max_tokens"})

    def __init__(
        self, name: str, base_url: str, timeout: float, api_key: str | None = None, empty_answers: bool = False
    ) -> None:
        provider, _, self._model = name.partition("/")
        definition = ProviderDefinition.chat(
            AccessPolicy(provider=provider, base_url=base_url),
            compat=OpenAIChatCompat.preset("lmstudio"),
            placeholder_key="none",
        )
        self.transport = Transport(base_url, timeout, partial(sound_body, empty_answers=empty_answers))
        config = RouterConfig(
            api_keys=None if api_key is None else {provider: api_key},
            env={},
            providers=(definition,),
            transport=self.transport,
        )
        self._server = LMRouter(config).lm(f"{provider}:{self._model}")
        self.key = api_key or ""
        self.empty_answers = empty_answers
        self.refused = RefusedParameters()

    def complete(self, request: Request) -> Response:
        """One attempt.

        Raises:
            LM15Error: if the call fails, or the server answers without a message of the model, as some do that report
                an error with status 200; DSPy converts it to its own errors.
        """
        with no_key_in_errors(self.key):
            response: Response = self.refused.complete(self._server.complete, self.prepared(request))
            return response

    def prepared(self, request: Request) -> Request:
        """The request as this server takes it."""
        return replace(request, model=self._model)

    def provider(self, request: Request) -> tuple[Any, Request]:
        """DSPy's client of the server, which writes bodies and reads answers, and the request with its model's name."""
        return self._server, request
