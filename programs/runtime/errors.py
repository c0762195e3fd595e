"""Errors that the user can correct; the command line prints them without a traceback."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import ValidationError


class InputError(ValueError):
    """Invalid input from the user; the message says what is wrong, where, and what to do."""


def input_error(where: object, error: ValidationError, remedy: str = "") -> InputError:
    """An error from the first problem of a failed validation: `where: field.name: problem; remedy`.

    Args:
        where: The file, with the line if it has lines.
    """
    first = error.errors(include_url=False)[0]
    field = ".".join(str(step) for step in first["loc"])
    # Pydantic's prefix for errors raised by our own validators.
    problem = first["msg"].removeprefix("Value error, ")
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
