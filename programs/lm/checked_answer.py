"""Check of answers that DSPy's clients of hosted models read: unknown forms, and impossible numbers of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

from dspy.lm15 import Response, ServerError, Usage

from programs.lm.chat_body import token_count
from programs.runtime.errors import InputError, abridged, one_line

_UNREADABLE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What the clients raise of answers that have another form than they expect."""

_COUNTS = tuple(field.name for field in fields(Usage))
_SHOWN_CHARACTERS = 200


def checked_answer(read: Callable[[], Response]) -> Response:
    """An answer as it is read; numbers of tokens that cannot be are unknown.

    Args:
        read: Reads the answer; errors of DSPy and our own pass.

    Raises:
        ServerError: if it cannot be read.
    """
    try:
        response = read()
    except InputError:
        raise
    except _UNREADABLE as error:
        said = abridged(f"{type(error).__name__}: {one_line(error)}", _SHOWN_CHARACTERS)
        raise ServerError(f"the provider's answer cannot be read ({said})", status=200) from None
    for name in _COUNTS:
        count = getattr(response.usage, name)
        if count is not None and token_count(count) is None:
            return replace(response, usage=Usage())
    return response
