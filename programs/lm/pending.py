"""Pending calls: questions whose answers come later, with a batch, or not in this session, and programs without them.

A program goes on with what does not depend on the missing answer, so that its questions are asked together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from dspy.utils.exceptions import LMError


class PendingCall(BaseException):
    """The answer to this call comes later: what depends on it cannot go on now, and nothing has failed.

    Not an `Exception`: nothing may take it for a failed call.
    """


class GivenUpError(LMError):
    """This session has asked the question in several batches without an answer; another session asks it anew.

    Nothing is known to be wrong with the question or the model: its lines expired, or failed in passing.
    """

    default_code = "given_up"


@contextmanager
def independent() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Yields a context manager for steps of which none needs the result of another.

    A pending call ends its own step only; the others are still made. The end of the block raises it.

    Raises:
        PendingCall: if one was raised in a step.

    >>> asked = []
    >>> try:
    ...     with independent() as step:
    ...         for question in ("a", "b"):
    ...             with step():
    ...                 asked.append(question)
    ...                 raise PendingCall
    ... except PendingCall:
    ...     print(asked)
    ['a', 'b']
    """
    pending: list[PendingCall] = []

    @contextmanager
    def step() -> Iterator[None]:
        try:
            yield
        except PendingCall as call:
            pending.append(call)

    yield step
    if pending:
        raise pending[0]
