"""Routes of a server beside chat: embeddings, reranking, likelihood; budget, ledger, retries and limits are chat's."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from dspy._vendor.lm15.errors import map_http_error
from dspy._vendor.lm15.providers.base import _retry_after_seconds
from dspy._vendor.lm15.transports import TransportError as ConnectionFailed
from dspy._vendor.lm15.transports import TransportRequest
from dspy.lm15 import (
    LM15Error,
    Message,
    Request,
    Response,
    ServerError,
    TextPart,
    TransportError,
    UnsupportedFeatureError,
    Usage,
)

from programs.lm.chat_body import object_in, shown, token_count
from programs.lm.keys import no_key_in_errors
from programs.lm.role_lm import RoleLM
from programs.lm.transport import Transport
from programs.runtime.errors import one_line

Fields = dict[str, Any]


@dataclass(frozen=True)
class Route:
    """A route of a server, and what is kept of its answers.

    Attributes:
        path: Below the base URL.
        read: From an answer and the fields of its question to plain data. Raises LookupError, TypeError or ValueError
            if the answer is none.
        cached: Whether answers are kept in the response cache.
        repeated: Field that the server reads once for each document, or empty.
        unsent: Fields that say how to read the answer, and are not sent.
        required: Parameters without which the answer is useless: a server that refuses one lacks the route.
    """

    path: str
    read: Callable[[Fields, Fields], Any]
    cached: bool
    repeated: str = ""
    unsent: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


def _vectors(answer: Fields, asked: Fields) -> list[list[float]]:
    """One vector for each text, in the order of the texts."""
    by_index = {entry["index"]: [float(value) for value in entry["embedding"]] for entry in answer["data"]}
    vectors = [by_index[index] for index in range(len(asked["input"]))]
    if len({len(vector) for vector in vectors}) != 1 or not all(map(math.isfinite, chain(*vectors))):
        raise ValueError("vectors of different length, or with infinite values")
    return vectors


def _scores(answer: Fields, asked: Fields) -> list[float | None]:
    """One score for each document; None where the server gave none that can be read."""
    scores: list[float | None] = [None] * len(asked["documents"])
    for entry in answer["results"]:
        index, score = entry["index"], float(entry["relevance_score"])
        if 0 <= index < len(scores) and math.isfinite(score):
            scores[index] = score
    if scores.count(None) == len(scores):
        raise ValueError("no score")
    return scores


def _log_probabilities(answer: Fields, asked: Fields) -> list[float]:
    """Log-probabilities of the tokens of the prompt that begin at its character `after` or later, in nats.

    Positions are counted from the end, because some servers list a token for the beginning of the text, whose name has
    a length, too.

    Raises:
        UnsupportedFeatureError: if the server did not repeat the prompt, as servers do that ignore `echo`.
    """
    (choice,) = answer["choices"]
    prompt, text = asked["prompt"], choice["text"]
    if not text.startswith(prompt):
        raise UnsupportedFeatureError(NO_ECHO)
    listed = choice["logprobs"]
    tokens, starts, values = listed["tokens"], listed["text_offset"], listed["token_logprobs"]
    end = starts[-1] + len(tokens[-1]) - (len(text) - len(prompt))
    first = end - (len(prompt) - asked["after"])
    found = [float(value) for start, value in zip(starts, values, strict=True) if first <= start < end]
    if not found or not all(map(math.isfinite, found)):
        raise ValueError("no log-probabilities, or infinite ones")
    return found


NO_ECHO = (
    "the server gives no log-probabilities of a prompt (/v1/completions with echo and logprobs): vLLM and SGLang do, "
    "llama.cpp does not"
)

# Vectors have a store of their own.
EMBEDDINGS = Route("/embeddings", _vectors, cached=False)
RERANK = Route("/rerank", _scores, cached=True, repeated="query")
PROMPT_LOGPROBS = Route(
    "/completions", _log_probabilities, cached=True, unsent=("after",), required=("echo", "logprobs")
)


class RouteEngine:
    """Sends questions to one route of one server: DSPy's engine interface, with JSON in place of messages.

    The text of the request is a JSON object with the fields to send; that of the response is what the route keeps.

    Attributes:
        supports_function_calling, supports_reasoning, supports_response_schema, supported_params: DSPy's capability
            hints; there are none.

    Args:
        name: `provider/model`, as `dspy.LM` gets it.
        base_url: Up to and without the route.
        timeout: Seconds one attempt may take.
        api_key: For servers that need one.
    """

    supports_function_calling = supports_reasoning = supports_response_schema = False
    supported_params: frozenset[str] = frozenset()

    def __init__(self, name: str, base_url: str, route: Route, timeout: float, api_key: str | None = None) -> None:
        self._model = name.partition("/")[2]
        self._url = base_url.rstrip("/") + route.path
        self._route = route
        self._headers = [("Content-Type", "application/json"), ("Accept", "application/json")]
        if api_key is not None:
            self._headers.append(("Authorization", f"Bearer {api_key}"))
        self._transport = Transport(base_url, timeout, lambda body: body)
        self._key = api_key or ""

    def complete(self, request: Request) -> Response:
        """One attempt.

        Raises:
            LM15Error: if the call fails, or the server answers with status 200 but without what was asked for.
        """
        with no_key_in_errors(self._key):
            return self._complete(request)

    def _complete(self, request: Request) -> Response:
        (part,) = request.messages[-1].parts
        fields: Fields = json.loads(part.text)
        sent = {name: value for name, value in fields.items() if name not in self._route.unsent}
        body = json.dumps({"model": self._model, **sent}).encode()
        try:
            with self._transport.stream(TransportRequest("POST", self._url, list(self._headers), body)) as response:
                raw = response.read()
        except ConnectionFailed as error:
            raise TransportError(str(error)) from error
        if response.status != 200:
            refusal = _refusal(response.status, raw, response.header("retry-after"))
            if response.status in (400, 422) and any(name in str(refusal) for name in self._route.required):
                raise UnsupportedFeatureError(f"{NO_ECHO}; it says: {one_line(refusal)}")
            raise refusal
        answer = object_in(raw)
        try:
            kept = self._route.read(answer, fields)
        except (LookupError, TypeError, ValueError) as error:
            raise ServerError(
                f"the server answered {self._route.path} with status 200, but not what was asked ({one_line(error)}): "
                f"{shown(raw)}",
                status=200,
            ) from error
        return Response(
            id=None,
            model=self._model,
            message=Message(role="assistant", parts=(TextPart(json.dumps(kept)),)),
            finish_reason="stop",
            usage=_usage(answer),
        )


def _refusal(status: int, raw: bytes, retry_after: str | None) -> LM15Error:
    try:
        error = object_in(raw).get("error")
        message = str(error["message"]) if isinstance(error, dict) and "message" in error else shown(raw)
    except ServerError:
        message = shown(raw)
    refusal: LM15Error = map_http_error(
        status, message or f"HTTP {status}", retry_after=_retry_after_seconds(retry_after)
    )
    return refusal


def _usage(answer: Fields) -> Usage:
    usage = answer.get("usage")
    given = (usage.get("prompt_tokens"), usage.get("total_tokens")) if isinstance(usage, dict) else ()
    tokens = next((count for count in map(token_count, given) if count is not None), None)
    if tokens is None or not isinstance(usage, dict):
        return Usage()
    return Usage(input_tokens=tokens, output_tokens=token_count(usage.get("completion_tokens")) or 0)


class RouteLM(RoleLM):
    """A `RoleLM` for a route: asked with fields as JSON, not with messages."""

    def __init__(self, *args: Any, route: Route, **settings: Any) -> None:
        super().__init__(*args, cache=route.cached, **settings)
        self._route = route
        self.account = replace(self.account, operation=route.path.strip("/").replace("completions", "text_completion"))

    def _most_tokens(self, request: bytes, kwargs: dict[str, Any]) -> tuple[int, int]:
        most, written = super()._most_tokens(request, kwargs)
        if self._route.repeated:
            fields = json.loads(json.loads(request)[0])
            again, _ = super()._most_tokens(json.dumps(fields[self._route.repeated]).encode(), kwargs)
            most += again * len(fields["documents"])
        return most, written
