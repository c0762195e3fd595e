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
        while True:
            allowed = self._allowed(request)
            try:
                return send(allowed)
            except InvalidRequestError as error:
                if not self._learn(error, allowed):
                    raise

    def _allowed(self, request: Request) -> Request:
        present = {name: value for name, value in self._instead.items() if getattr(request.config, name) is not None}
        lower = {
            name: value if value is None else min(value, getattr(request.config, name))
            for name, value in present.items()
        }
        return replace(request, config=replace(request.config, **lower)) if lower else request

    def _learn(self, error: InvalidRequestError, request: Request) -> bool:
        message = str(error.message)
        if isinstance(error, ContextLengthError) or refuses_text(message) or error.status not in (None, 400, 422):
            return False
        for name, pattern in _NAMED_AS.items():
            sent = getattr(request.config, name)
            if sent is None or not re.search(pattern, message, re.IGNORECASE):
                continue
            smaller = (
                [n for n in map(int, re.findall(r"\b\d{1,9}\b", message)) if 0 < n < sent] if _limited(name) else []
            )
            with self._lock:
                self._instead[name] = max(smaller, default=None)
            return True
        return False


def refuses_text(message: str, code: str | None = None) -> bool:
    """Whether a provider refuses the text it was sent: a content filter, or a text too long for the model.

    Such a refusal concerns one user or one item; to ask again does not help.
    """
    return code in ("content_filter", "content_policy_violation", "context_length_exceeded") or bool(
        _TEXT_IS_REFUSED.search(message)
    )


def _limited(name: str) -> bool:
    return name in _LIMITED
