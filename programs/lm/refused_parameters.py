"""Optional request parameters that a server refuses: left out of the same request, and of all later ones.

The limit on an answer's length is never left out, because budgets count on it: it is lowered or given another name.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

from dspy.lm15 import ContextLengthError, InvalidRequestError, Request, Response

_NAMED_AS = {
    "response_format": r"response_format|json_schema|json_object|structured output|guided|grammar",
    "logprobs": r"logprob",
    "temperature": r"temperature",
    "top_p": r"top_p",
    "max_tokens": r"max_(completion_)?tokens",
    "reasoning": r"reasoning|thinking|effort",
}
"""Fields of a request's configuration, and how servers name them in a refusal."""

_OTHER_NAME = "max_completion_tokens"
"""Of `max_tokens`, on servers that know no other."""

LEAST_CAP = 16
"""Tokens to which a smaller limit on an answer's length is raised for a server that asks for more; the smallest limit
that is tried. Whoever counts the most that a call may cost counts at least as many."""

_AT_LEAST = "at least"
_LIMIT_AS = {_AT_LEAST: "max_tokens", _OTHER_NAME: "max_tokens"}
"""What is sent instead of a refused limit has names of its own."""

_MOST_ROUNDS = 10
"""Refusals of one request: a server that asks for one token less each time would be asked for ever."""

_TEXT_IS_REFUSED = re.compile(
    r"content.?(management )?(policy|filter)|safety (system|policy)|context.?(length|window|size)|maximum context|"
    r"(prompt|input) is too long",
    re.IGNORECASE,
)


_IS_UNKNOWN = re.compile(r"unsupported|not supported|instead", re.IGNORECASE)
"""In a refusal of a parameter that the server does not know, whatever its value."""

_BEFORE_FURTHER: ContextVar[Callable[[InvalidRequestError], None]] = ContextVar(
    "before_further", default=lambda error: None
)


@contextmanager
def before_each_further(hook: Callable[[InvalidRequestError], None]) -> Iterator[None]:
    """Inside the block `hook` is called with the refusal before a request is sent again in another form.

    Each of them is a request for a budget and the limits of a backend, whatever it is for the question.
    """
    token = _BEFORE_FURTHER.set(hook)
    try:
        yield
    finally:
        _BEFORE_FURTHER.reset(token)


class RefusedParameters:
    """What one server refused so far. Safe to use from several threads."""

    def __init__(self) -> None:
        self._instead: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that are left out or limited, in the order in which they were refused."""
        return tuple(dict.fromkeys(_LIMIT_AS.get(name, name) for name in self._instead))

    def complete(self, send: Callable[[Request], Response], request: Request) -> Response:
        """Send a request without the refused parameters; again without those that this very request shows to be.

        Raises:
            InvalidRequestError: if the request is refused for another reason.
            BaseException: what the hook of `before_each_further` raises.
        """
        trial = self.trial(request)
        while True:
            try:
                response = send(trial.request)
            except InvalidRequestError as error:
                trial.refused(error)
                _BEFORE_FURTHER.get()(error)
            else:
                trial.accepted()
                return response

    def trial(self, request: Request) -> RequestTrial:
        """A request on its way to the server: what to send now, and after a refusal."""
        return RequestTrial(self, request, self._known())

    def _known(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._instead)

    def remember(self, instead: dict[str, Any]) -> None:
        """What was left out of a request that was answered is left out of all later ones."""
        with self._lock:
            for name, value in instead.items():
                known = self._instead.get(name, value)
                self._instead[name] = None if known is None or value is None else min(known, value)


class RequestTrial:
    """A request without the parameters that a server refused, those of this very request included.

    Attributes:
        request: What to send now.
        instead: What is left out or limited in it.
    """

    def __init__(self, known: RefusedParameters, request: Request, instead: dict[str, Any]) -> None:
        self.request = _without(request, instead)
        self.instead = instead
        self._known = known
        self._whole = request
        self._rounds = 0

    def refused(self, error: InvalidRequestError) -> None:
        """The server refused the request: another one is to be sent.

        Raises:
            InvalidRequestError: if it was refused for another reason, or too often.
        """
        more = _refused(error, self.request)
        self._rounds += 1
        if more is None or self._rounds == _MOST_ROUNDS:
            raise error
        self.instead = self.instead | more
        self.request = _without(self._whole, self.instead)

    def accepted(self) -> None:
        """It was answered. A refusal may have quoted a prompt with the word "temperature": only now it is known."""
        self._known.remember(self.instead)


def _without(request: Request, instead: dict[str, Any]) -> Request:
    config = request.config
    changed: dict[str, Any] = {}
    for name, value in instead.items():
        sent = getattr(config, name, None)
        if sent is not None:
            changed[name] = value if value is None else min(value, sent)
    cap = changed.get("max_tokens", config.max_tokens)
    if cap is not None and cap < instead.get(_AT_LEAST, 0):
        changed["max_tokens"] = cap = LEAST_CAP
    if cap is not None and _OTHER_NAME in instead:
        changed |= {"max_tokens": None, "extensions": {**(config.extensions or {}), _OTHER_NAME: cap}}
    return replace(request, config=replace(config, **changed)) if changed else request


def _cap(request: Request) -> int | None:
    """The limit on the answer's length that a request has, under either name."""
    limit: int | None = request.config.max_tokens or (request.config.extensions or {}).get(_OTHER_NAME)
    return limit


def _refused(error: InvalidRequestError, request: Request) -> dict[str, Any] | None:
    """The first parameter that a refusal names, with the value to send instead; None if nothing else can be sent."""
    message = str(error.message)
    if isinstance(error, ContextLengthError) or refuses_text(message, error.provider_code):
        return None
    if error.status not in (None, 400, 422):
        return None
    for name, pattern in _NAMED_AS.items():
        sent = _cap(request) if name == "max_tokens" else getattr(request.config, name)
        if sent is None or not re.search(pattern, message, re.IGNORECASE):
            continue
        smaller = max((n for n in _numbers(message) if 0 < n < sent), default=None) if name == "logprobs" else None
        return _other_cap(message, sent, request) if name == "max_tokens" else {name: smaller}
    return None


def _other_cap(message: str, sent: int, request: Request) -> dict[str, Any] | None:
    """Another limit on the answer's length: under its other name, or one that the message states, or half of it.

    Numbers below any limit that is tried, and those in a message that names the other name, may be anything: a version,
    a status.
    """
    unnamed = request.config.max_tokens is not None and _OTHER_NAME in message
    if unnamed and _IS_UNKNOWN.search(message):
        return {_OTHER_NAME: None}
    if sent < LEAST_CAP and any(sent < n <= LEAST_CAP for n in _numbers(message)):
        return {_AT_LEAST: LEAST_CAP}
    smaller = max((n for n in _numbers(message) if min(LEAST_CAP, sent) <= n < sent), default=None)
    if smaller is None and unnamed:
        return {_OTHER_NAME: None}
    lower = sent // 2 if smaller is None else smaller
    return {"max_tokens": lower} if lower >= min(LEAST_CAP, sent) else None


def _numbers(message: str) -> list[int]:
    return [int(digits) for digits in re.findall(r"\b\d{1,9}\b", message)]


def refuses_text(message: str, code: str | None = None) -> bool:
    """Whether a provider refuses the text it was sent: a content filter, or a text too long for the model.

    Such a refusal concerns one user or one item; to ask again does not help.
    """
    return code in ("content_filter", "content_policy_violation", "context_length_exceeded") or bool(
        _TEXT_IS_REFUSED.search(message)
    )
