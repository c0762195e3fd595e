"""Errors a person can act on. The command line prints them without a traceback."""

from __future__ import annotations


class InputError(ValueError):
    """Something the user gave cannot be used; the message says what, where and what to do."""


class MissingExtraError(ImportError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}': pip install 'mllm3rec[{extra}]'")


class BudgetExceededError(BaseException):
    """The next call would pass the budget, so it was not made.

    Not an `Exception`: DSPy's evaluators turn exceptions into failed examples, and a spent budget must
    stop the run instead (measured: research notes on Evaluate and MIPROv2).
    """
