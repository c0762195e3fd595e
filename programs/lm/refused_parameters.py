"""Optional request parameters that a server refuses: left out of the same request, and of all later ones."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from dspy.lm15 import ContextLengthError, InvalidRequestError, Request, Response

_NAMED_AS = {
    "response_format": r"response_format|json_schema|json_object|structured output|guided|grammar",
    "logprobs": r"logprob",
    "temperature": r"temperature",
    "top_p": r"top_p",
    "max_tokens": r"max_(completion_)?tokens",
}
"""Fields of a request's configuration, and how servers name them in a refusal."""

_LIMITED = ("logprobs", "max_tokens")
"""Parameters that a smaller number may make acceptable."""

_MOST_ROUNDS = 2 * len(_NAMED_AS)
"""Refusals of one request: a server that asks for one token less each time would be asked for ever."""

_TEXT_IS_REFUSED = re.compile(
    r"content.?(management )?(policy|filter)|safety (system|policy)|context.?(length|window|size)|maximum context|"
    r"(prompt|input) is too long",
    re.IGNORECASE,
)


class RefusedParameters:
    """What one server refused so far. Safe to use from several threads."""

    def __init__(self) -> None:
        self._instead: dict[str, Any] = {}
        self._lock = threading.Lock()

    @property
    def names(self) -> tuple[str, ...]:
        """Parameters that are left out or limited, in the order in which they were refused."""
        return tuple(self._instead)

    def complete(self, send: Callable[[Request], Response], request: Request) -> Response:
        """Send a request without the refused parameters; again without those that this very request shows to be.

        Raises:
            InvalidRequestError: if the request is refused for another reason.
        """
        instead = self._known()
        for _ in range(_MOST_ROUNDS):
            allowed = _without(request, instead)
            try:
                response = send(allowed)
            except InvalidRequestError as error:
                refused = _refused(error, allowed)
                if refused is None:
                    raise
                instead |= refused
                last = error
            else:
                # A message may quote a prompt with the word "temperature": only what helped is remembered.
                self._remember(instead)
                return response
        raise last

    def _known(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._instead)

    def _remember(self, instead: dict[str, Any]) -> None:
        with self._lock:
            for name, value in instead.items():
                known = self._instead.get(name, value)
                self._instead[name] = None if known is None or value is None else min(known, value)


def _without(request: Request, instead: dict[str, Any]) -> Request:
    present = {name: value for name, value in instead.items() if getattr(request.config, name) is not None}
    lower = {
        name: value if value is None else min(value, getattr(request.config, name)) for name, value in present.items()
    }
    return replace(request, config=replace(request.config, **lower)) if lower else request


def _refused(error: InvalidRequestError, request: Request) -> dict[str, Any] | None:
    """The first parameter that a refusal names, with the value to send instead; None if it names none."""
    message = str(error.message)
    if isinstance(error, ContextLengthError) or refuses_text(message) or error.status not in (None, 400, 422):
        return None
    for name, pattern in _NAMED_AS.items():
        sent = getattr(request.config, name)
        if sent is None or not re.search(pattern, message, re.IGNORECASE):
            continue
        smaller = [n for n in map(int, re.findall(r"\b\d{1,9}\b", message)) if 0 < n < sent] if name in _LIMITED else []
        return {name: max(smaller, default=None)}
    return None


def refuses_text(message: str, code: str | None = None) -> bool:
    """Whether a provider refuses the text it was sent: a content filter, or a text too long for the model.

    Such a refusal concerns one user or one item; to ask again does not help.
    """
    return code in ("content_filter", "content_policy_violation", "context_length_exceeded") or bool(
        _TEXT_IS_REFUSED.search(message)
    )
