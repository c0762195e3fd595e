"""Errors that the user can correct; the command line prints them without a traceback."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from difflib import get_close_matches
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


QUOTED_CHARACTERS = 200
"""Most characters of one foreign value that a message repeats."""

MESSAGE_CHARACTERS = 2000
"""Most characters of a whole message: no file can flood the terminal."""


class InputError(ValueError):
    """Invalid input from the user; the message says what is wrong, where, and what to do.

    A message of more than `MESSAGE_CHARACTERS` is cut.
    """

    def __init__(self, message: str) -> None:
        super().__init__(abridged(message, MESSAGE_CHARACTERS))


class NothingLeftError(InputError):
    """A user has all items. It concerns this user alone: among many users it ends nobody else's work."""


def abridged(text: str, most: int = QUOTED_CHARACTERS) -> str:
    """A text within `most` characters; one that was cut says so, with its length.

    >>> abridged("abc"), abridged("a" * 1000, 30)
    ('abc', 'aaaaaaaa... (1,000 characters)')
    """
    if len(text) <= most:
        return text
    ending = f"... ({len(text):,} characters)"
    return text[: most - len(ending)] + ending


_ADVICE = "\n\n  To fix:"
"""Where DSPy's transport begins to advise about its own settings, which are not ours."""


def one_line(error: BaseException) -> str:
    r"""What an error says, on one line; its name if it says nothing.

    >>> one_line(OSError("the disk\n  is full"))
    'the disk is full'
    """
    return " ".join(str(error).partition(_ADVICE)[0].split()) or type(error).__name__


def quoted(value: object) -> str:
    """A value of a file as messages show it: on one line, and no more than `QUOTED_CHARACTERS` of it.

    >>> quoted("two\\nlines"), len(quoted("a" * 1000))
    ("'two\\\\nlines'", 200)
    """
    try:
        return abridged(repr(value))
    except (RecursionError, ValueError):  # nested too deep, or an integer of thousands of digits
        return f"a {type(value).__name__}"


def listed(names: Iterable[object]) -> str:
    """Names of a file as messages list them, within `QUOTED_CHARACTERS`."""
    return abridged(", ".join(map(str, names)))


def counted(number: int, noun: str) -> str:
    """A number with its noun.

    >>> counted(1, "run"), counted(2000, "run")
    ('1 run', '2,000 runs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def nearest_name(name: str, names: Iterable[str]) -> str:
    """A question after a name that is near to a wrong one, for the middle of a message; a full stop if none is near.

    >>> nearest_name("gepaa", ["gepa", "mipro"]), nearest_name("x", ["gepa"])
    (": did you mean 'gepa'?", '.')
    """
    near = get_close_matches(name, list(names), n=1)
    return f": did you mean {near[0]!r}?" if near else "."


def input_error(where: object, error: ValidationError, remedy: str = "") -> InputError:
    """An error from the first problem of a failed validation: `where: field.name: problem; remedy`.

    Args:
        where: The file, with the line if it has lines.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    # A key of the file may be part of the field's name.
    field = abridged(" ".join(".".join(str(step) for step in first["loc"]).split()))
    # Pydantic's prefix for errors raised by our own validators.
    problem = abridged(first["msg"].removeprefix("Value error, "), 2 * QUOTED_CHARACTERS)
    return InputError(f"{where}: {f'{field}: ' if field else ''}{problem}{f'; {remedy}' if remedy else ''}")


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}': pip install 'mllm3rec[{extra}]'")


_PACKAGES = {"lightfm": "lightfm-next", "sklearn": "scikit-learn"}
"""Packages whose name differs from their module's."""


def require_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Import a module of an optional dependency.

    Args:
        extra: The extra of this project that contains it.
        purpose: What needs it: the subject of the message.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingExtraError(_PACKAGES.get(module, module), extra, purpose) from error


class BudgetExceededError(BaseException):
    """The next call might exceed the budget, so it was not made.

    Not an `Exception`: DSPy's evaluators turn exceptions into failed examples, but a spent budget must stop the run.
    """
