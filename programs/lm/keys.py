"""API keys: what a valid one is, and how they are taken out of everything that a server or a client writes."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from programs.runtime.errors import InputError

SHORTEST_KEY = 8
"""Characters; servers without a key get a placeholder, which is an ordinary word."""

_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)


def usable_key(key: str, variable: str) -> str:
    """A key that a header can hold.

    Raises:
        InputError: naming the variable, not the key, if it has white space, control or foreign characters.
    """
    if not key.isascii() or not key.isprintable() or " " in key:
        raise InputError(
            f"the key in the environment variable {variable} has a line break, a space or a character that no header "
            "can hold: set it again without"
        )
    return key


def without_key(text: str, key: str) -> str:
    """The text with `[key]` for the key, also where it is escaped as in JSON or an address.

    >>> without_key(r"no: sk\\/canary123, nor SK%2Fcanary123", "sk/canary123")
    'no: [key], nor [key]'
    """
    return _spellings(key).sub("[key]", text) if len(key) >= SHORTEST_KEY else text


@lru_cache(maxsize=256)
def _spellings(key: str) -> re.Pattern[str]:
    return re.compile("".join(map(_spellings_of, key)), re.IGNORECASE)


def _spellings_of(character: str) -> str:
    code = ord(character)
    return rf"(?:\\?{re.escape(character)}|\\u{code:04x}|%{code:02x})"


@contextmanager
def no_key_in_errors(key: str | None = None) -> Iterator[None]:
    """Errors raised inside the block, and those that they were made from, have no key in their text.

    Args:
        key: The one that was sent; None if a client took it from the environment, whose secrets are then looked for.
    """
    try:
        yield
    except Exception as error:
        _clean(error, [*_secrets_in(os.environ)] if key is None else [key])
        raise


@contextmanager
def no_secret_in_errors(settings: Mapping[str, Any]) -> Iterator[None]:
    """Like `no_key_in_errors`, for a client that was not made here: its keys are in its settings or the environment.

    Args:
        settings: Of the client. Texts under a name such as `api_key` are taken out, and what its headers hold.
    """
    try:
        yield
    except Exception as error:
        _clean(error, [*_secrets_in(settings), *_secrets_in(os.environ)])
        raise


def _secrets_in(settings: Mapping[str, Any]) -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, str) and _SECRET.search(name):
            yield value
        elif isinstance(value, Mapping) and "headers" in name:
            yield from (text.rpartition(" ")[2] for text in value.values() if isinstance(text, str))


def _clean(error: BaseException, keys: list[str]) -> None:
    """Clean an error in place, with all that it was made from; one that cannot be cleaned is forgotten."""
    error.args = tuple(_cleaned(part, keys) for part in error.args)
    for name, value in vars(error).items():
        setattr(error, name, _cleaned(value, keys))
    for link in ("__cause__", "__context__"):
        made_from: BaseException | None = getattr(error, link)
        if made_from is not None:
            _clean(made_from, keys)
            if str(made_from) != _cleaned(str(made_from), keys):
                setattr(error, link, None)


def _cleaned(value: Any, keys: list[str]) -> Any:
    if isinstance(value, str):
        for key in sorted(keys, key=len, reverse=True):  # one may be a part of another
            value = without_key(value, key)
    return value
