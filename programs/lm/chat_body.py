"""Chat completion body: the sound parts of a server's answer, or an error that shows the server's own text.

Servers report errors with status 200, write null for an infinite log-probability, and count usage in their own ways.
The text of an answer was paid for, so unreadable metadata beside it is left out instead of failing the call.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import orjson
from dspy.lm15 import InvalidRequestError, ServerError

from programs.lm.answer_text import encodable

SHOWN_CHARACTERS = 200
"""Of a server's text in an error."""

_MOST_TOKENS = 10**9
_COUNTS = ("prompt_tokens", "completion_tokens")
_DETAILS = {
    "prompt_tokens_details": ("cached_tokens", "cache_write_tokens", "audio_tokens"),
    "completion_tokens_details": ("reasoning_tokens", "audio_tokens"),
}


def sound_body(raw: bytes, empty_answers: bool = False) -> bytes:
    """An answer with status 200, reduced to what can be read: its first choice, its usage, its log-probabilities.

    Args:
        raw: The body as it came.
        empty_answers: Whether an answer without text is the model's own: true of the engine in this process.

    Raises:
        ServerError: if the body holds no message with text, as some servers report errors with status 200. An answer
            that was cut off while the model was thinking is no error.
        InvalidRequestError: if the provider withheld the text (content filter, refusal).
    """
    body = object_in(raw)
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict) or not message:
        raise without_message(raw)
    finish = choice.get("finish_reason") if isinstance(choice.get("finish_reason"), str) else None
    if finish == "content_filter":
        raise withheld(raw)
    if not _has_text(message):
        if message.get("refusal"):
            raise withheld(raw)
        cut_off_thinking = finish == "length" and message.get("content") in ("", None)
        if not cut_off_thinking and not (empty_answers and message.get("content") == ""):
            raise without_message(raw)
    message.pop("tool_calls", None)
    sound: dict[str, Any] = {
        "choices": [
            {"index": 0, "message": message, "finish_reason": finish, "logprobs": _logprobs(choice.get("logprobs"))}
        ],
        "usage": _usage(body.get("usage")),
    }
    for name in ("id", "model", "created", "object"):
        if isinstance(body.get(name), (str, int)):
            sound[name] = body[name]
    return orjson.dumps(_encodable(sound) if b"\\ud" in raw.lower() else sound)


def object_in(raw: bytes) -> dict[str, Any]:
    """A body as a JSON object. Raises `ServerError` if it is none."""
    try:
        body = orjson.loads(raw)
    except ValueError:
        body = _leniently(raw)
    if not isinstance(body, dict):
        raise ServerError(f"the server's answer is no JSON object: {shown(raw)}", status=200)
    return body


def _leniently(raw: bytes) -> Any:
    """What `orjson` refuses and some servers send: NaN, lone surrogates, other encodings than UTF-8."""
    try:
        # Integers of any length are read; those that count no tokens are dropped with the other unreadable counts.
        return json.loads(raw, parse_int=lambda digits: int(digits) if len(digits) < 20 else math.inf)
    except (ValueError, RecursionError) as error:
        raise ServerError(f"the server's answer is no JSON: {shown(raw)}", status=200) from error


def withheld(raw: bytes) -> InvalidRequestError:
    """The error for a text that a provider's filters refuse, or whose answer they cut off."""
    return InvalidRequestError(
        f"the provider withheld the answer: {shown(raw)}", provider_code="content_filter", status=200
    )


def without_message(raw: bytes) -> ServerError:
    """The error for an answer with status 200 that holds no text."""
    return ServerError(
        f"the server answered with status 200, but without a message of the model: {shown(raw)}", status=200
    )


def shown(raw: bytes) -> str:
    """The beginning of a body, for a message."""
    return " ".join(raw[: 4 * SHOWN_CHARACTERS].decode("utf-8", "replace").split())[:SHOWN_CHARACTERS]


def _has_text(message: Mapping[str, Any]) -> bool:
    content = message.get("content")
    if isinstance(content, list):
        return any(isinstance(part, dict) and isinstance(part.get("text"), str) and part["text"] for part in content)
    return isinstance(content, str) and bool(content.strip())


def _usage(usage: Any) -> dict[str, Any]:
    if not isinstance(usage, dict):
        return {}
    sound: dict[str, Any] = {name: count for name in _COUNTS if (count := token_count(usage.get(name))) is not None}
    for group, names in _DETAILS.items():
        of_group = usage.get(group)
        if isinstance(of_group, dict):
            counts = {name: count for name in names if (count := token_count(of_group.get(name))) is not None}
            most = sound.get(group.removesuffix("_details"), 0)
            # No more cached tokens than there are: the price of the others would be negative.
            sound[group] = {name: min(count, most) for name, count in counts.items()}
    return sound


def token_count(value: Any) -> int | None:
    """A number of tokens; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return int(value) if 0 <= value <= _MOST_TOKENS and value == int(value) else None


def _logprobs(logprobs: Any) -> dict[str, Any] | None:
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list):
        return None
    tokens = [
        _token(entry) | {"top_logprobs": [_token(top) for top in entry.get("top_logprobs") or () if _is_token(top)]}
        if isinstance(entry.get("top_logprobs"), list)
        else _token(entry)
        for entry in content
        if _is_token(entry)
    ]
    # Without one of its tokens, the first token that is left need not be the answer's first.
    return {"content": tokens} if len(tokens) == len(content) else None


def _is_token(entry: Any) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("token"), str) and _is_finite(entry.get("logprob"))


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _token(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {"token": entry["token"], "logprob": entry["logprob"]}


def _encodable(value: Any) -> Any:
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, dict):
        return {_encodable(key): _encodable(entry) for key, entry in value.items()}
    return [_encodable(entry) for entry in value] if isinstance(value, list) else value
