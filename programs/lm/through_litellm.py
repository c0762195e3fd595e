"""Client of providers that DSPy reaches through LiteLLM only: our deadline, and no key in the text of an error.

LiteLLM limits the time between two bytes, not the call, and repeats in its errors whatever a server wrote.
"""

from __future__ import annotations

import threading
from typing import Any

import dspy
from dspy.clients.engines.litellm_engine import LiteLLMEngine
from dspy.lm15 import Request, Response
from dspy.lm15 import TimeoutError as CallTimeoutError

from programs.lm.capability_hints import CapabilityHints
from programs.lm.checked_answer import checked_answer
from programs.lm.keys import no_key_in_errors
from programs.lm.refused_parameters import RefusedParameters


class ThroughLiteLLM(CapabilityHints):
    """Sends requests to one model of a provider that DSPy's native engine does not know.

    Redirects are LiteLLM's own: they are followed, without an Authorization header where they lead to another host.

    Attributes:
        refused: Parameters that the provider refused.

    Args:
        model: `provider/model`.
        timeout: Seconds one attempt may take, from the connection to the last byte of the answer.
        api_key: Of the provider; None for the variables that LiteLLM documents.
    """

    def __init__(self, model: str, timeout: float, api_key: str | None = None) -> None:
        super().__init__(dspy.LM(model))
        self._timeout = timeout
        self._engine = LiteLLMEngine(timeout=timeout, **({} if api_key is None else {"api_key": api_key}))
        self._key = api_key
        self.refused = RefusedParameters()

    def complete(self, request: Request) -> Response:
        """One attempt. Raises `LM15Error` if it fails."""
        with no_key_in_errors(self._key):
            return self.refused.complete(self._answer, request)

    def _answer(self, request: Request) -> Response:
        return checked_answer(lambda: self._within_the_deadline(request))

    def _within_the_deadline(self, request: Request) -> Response:
        """The answer; a call that takes longer goes on in a thread of its own, which nobody waits for."""
        ended: list[Any] = []

        def call() -> None:
            try:
                ended.append(self._engine.complete(request))
            except BaseException as error:
                ended.append(error)

        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(self._timeout)
        if not ended:
            raise CallTimeoutError(f"no complete answer within {self._timeout:g} s")
        if isinstance(ended[0], BaseException):
            raise ended[0]
        response: Response = ended[0]
        return response
