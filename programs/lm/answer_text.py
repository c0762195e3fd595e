"""Answer text: what a model wrote, without its reasoning and without characters that no file can hold."""

from __future__ import annotations

import re

_TAGS = "think|thinking|thought|reasoning"
_OPENED = re.compile(rf"\s*<({_TAGS})>", re.IGNORECASE)
_CLOSED = re.compile(rf"</(?:{_TAGS})>", re.IGNORECASE)
_ESCAPE = re.compile(r"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F][\da-fA-F]{2})")
"""An escaped backslash, a whole character as two escapes, or half a character."""


def answer_text(completion: str) -> str:
    """The answer after the reasoning that a model writes before it between tags such as `<think>` and `</think>`.

    A chat template may have written the opening tag, so that the answer holds only the closing one. Text that begins
    like JSON is kept as it is: a tag in it is part of a string. Reasoning without an end leaves an empty answer. Half
    characters are replaced, as such and as JSON escapes.

    >>> answer_text('<think>{"draft": true}</think> {"rating": 4}')
    '{"rating": 4}'
    >>> answer_text('{"reason": "a <think> corner"}')
    '{"reason": "a <think> corner"}'
    >>> answer_text('{"reason": "' + chr(92) + 'ud83d mug"}') == '{"reason": "' + chr(92) + 'ufffd mug"}'
    True
    """
    text = encodable(completion)
    if "\\u" in text:
        # Read as JSON, the escape of half a character is one again.
        text = _ESCAPE.sub(lambda found: r"\ufffd" if found[1] else found[0], text)
    if text.lstrip()[:1] in ("{", "["):
        return text
    closed = _CLOSED.search(text)
    if closed is not None:
        return text[closed.end() :].lstrip()
    return "" if _OPENED.match(text) else text


def ends_reasoning(text: str) -> bool:
    """Whether a text holds the closing tag of a model's reasoning."""
    return _CLOSED.search(text) is not None


def encodable(text: str) -> str:
    """The text with half characters (lone surrogates) replaced: they cannot be written to a file or sent.

    >>> encodable("mug " + chr(0xD83D))
    'mug \ufffd'
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text
