"""What ends a whole job early, as words that workers can send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from programs.lm.circuit_breaker import BackendDownError
from programs.runtime.errors import BudgetExceededError, InputError

SPENT, DOWN, INVALID = "budget", "down", "input"


@contextmanager
def reported(report: Callable[[str, str], None]) -> Iterator[None]:
    """Report what ends the job, with its message, in place of raising it."""
    try:
        yield
    except BudgetExceededError as error:
        report(SPENT, str(error))
    except BackendDownError as error:
        report(DOWN, str(error))
    except InputError as error:
        report(INVALID, str(error))


def failure(kind: str, message: str) -> BaseException:
    """The error that was reported."""
    if kind == DOWN:
        return BackendDownError(message, refused=False)
    return BudgetExceededError(message) if kind == SPENT else InputError(message)
