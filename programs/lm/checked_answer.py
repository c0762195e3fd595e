"""Check of answers that DSPy's clients of hosted models read: unknown forms, no text, impossible numbers of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from dspy.lm15 import DataPart, InvalidRequestError, Response, ServerError, TextPart, Usage
from pydantic_core import to_json

from programs.lm.chat_body import token_count, withheld, without_message
from programs.runtime.errors import InputError, abridged, one_line

_UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What the clients raise of answers that have another form than they expect."""

_COUNTS = tuple(field.name for field in fields(Usage))
_SHOWN_CHARACTERS = 200


_WITHHELD = ("promptFeedback", "SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")
"""Codes of Google for a text that its filters refuse, in an answer with status 200."""

_NO_ANSWER = (
    "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE",
)
"""Codes of Google for an answer that is none, with status 200."""


def checked_answer(read: Callable[[], Response], empty_answers: bool = False) -> Response:
    """An answer as it is read; numbers of tokens that cannot be are unknown.

    Args:
        read: Reads the answer; errors of DSPy and our own pass.
        empty_answers: Whether an answer without text is the model's own, see `chat_body.sound_body`.

    Raises:
        ServerError: if it cannot be read, or has no text: an empty message, a tool call, an error with status 200. An
            answer that was cut off while the model was thinking is no error.
        InvalidRequestError: if the provider withheld the text (content filter, refusal).
    """
    try:
        response = read()
    except InputError:
        raise
    except InvalidRequestError as error:
        if error.provider_code in _WITHHELD:
            raise withheld(error.message.encode()) from None
        if error.provider_code in _NO_ANSWER:
            raise without_message(error.message.encode()) from None
        raise
    except _UNREADABLE as error:
        said = abridged(f"{type(error).__name__}: {one_line(error)}", _SHOWN_CHARACTERS)
        raise ServerError(f"the provider's answer cannot be read ({said})", status=200) from None
    if response.finish_reason == "content_filter":
        raise withheld(_body(response))
    if not (empty_answers or response.finish_reason == "length" or _answers(response)):
        raise without_message(_body(response))
    for name in _COUNTS:
        count = getattr(response.usage, name)
        if count is not None and token_count(count) is None:
            return replace(response, usage=Usage())
    return response


def _answers(response: Response) -> bool:
    """Whether there is text, or the fields that DSPy's client has read from it."""
    return any(
        isinstance(part, DataPart) or (isinstance(part, TextPart) and part.text.strip())
        for part in response.message.parts
    )


def _body(response: Response) -> bytes:
    """What the provider sent, for a message."""
    return to_json(response.provider_data or {}, fallback=str, inf_nan_mode="constants")
