"""Errors that models raise, and the end of a process."""

from __future__ import annotations

from dspy.utils.exceptions import LMRateLimitError, LMTransportError


class Killed(BaseException):
    """Stands for `kill -9` in this process."""


def too_many(retry_after: float | None = None) -> LMRateLimitError:
    """A call was rejected because there were too many; the server may say in how many seconds to come back."""
    return LMRateLimitError("too many", status=429, retry_after=retry_after)


def refused_connection() -> LMTransportError:
    """Nobody listens at the address."""
    error = LMTransportError("failed to connect")
    error.__cause__ = ConnectionRefusedError()
    return error
