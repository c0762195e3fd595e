"""Deadline of a request: after it nobody waits for what is asked, so no further call is sent.

A call in flight ends as usual: its answer is paid for, and kept for the next request.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from programs.lm.ledger import Ledger
from programs.runtime.errors import BudgetExceededError


class DeadlineError(BudgetExceededError):
    """The deadline of a request has passed, so its next call is not sent."""


@dataclass
class Deadline:
    """When nobody waits for an answer any more.

    Attributes:
        until: On the clock of `time.monotonic()`; infinite without a deadline.
    """

    until: float = math.inf

    @property
    def seconds_left(self) -> float:
        """Until the deadline, infinite without one; 0 or less afterwards."""
        return self.until - time.monotonic()

    def extend(self, other: Deadline) -> None:
        """Somebody else waits for the same answer."""
        self.until = max(self.until, other.until)

    def require(self) -> None:
        """Check that somebody still waits.

        Raises:
            DeadlineError: if nobody does.
        """
        if self.seconds_left <= 0:
            raise DeadlineError("the deadline of this request has passed")


_NONE = Deadline()
_CURRENT: ContextVar[Deadline] = ContextVar("deadline", default=_NONE)


def current_deadline() -> Deadline:
    """The deadline of this context; one that never comes outside of `before`."""
    return _CURRENT.get()


@contextmanager
def before(deadline: Deadline) -> Iterator[Deadline]:
    """Inside the block no call is sent after the deadline."""
    token = _CURRENT.set(deadline)
    try:
        yield deadline
    finally:
        _CURRENT.reset(token)


def wait_in_time(ledger: Ledger, seconds: float) -> None:
    """`Ledger.wait` that ends with the deadline of this context.

    Raises:
        BudgetExceededError: as `Ledger.wait`; `DeadlineError` after the deadline.
    """
    deadline = current_deadline()
    ledger.wait(max(0.0, min(seconds, deadline.seconds_left)))
    deadline.require()
