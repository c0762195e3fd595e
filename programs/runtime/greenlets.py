"""Synchronous code on an event loop: where a program waits for an answer, its greenlet is left and others go on.

So every program runs in bulk as it is: a greenlet costs a microsecond and no thread. It has the context variables of
the task that started it. What computes for long would hold up all others, so it goes to a thread: `off_loop`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from greenlet import getcurrent, greenlet

from programs.runtime.interrupts import Result


class _Bridged(greenlet):
    """A greenlet whose parent awaits what it hands over."""


def on_event_loop() -> bool:
    """Whether the current code was started by `in_greenlet`, so that it may call `wait_for`."""
    return isinstance(getcurrent(), _Bridged)


def wait_for(awaitable: Awaitable[Result]) -> Result:
    """The result of an awaitable, in code that was started by `in_greenlet`; other tasks run meanwhile."""
    parent = getcurrent().parent
    assert parent is not None  # noqa: S101 - see `in_greenlet`
    result: Result = parent.switch(awaitable)
    return result


def off_loop(function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a long computation, or of one that waits for a server: on an event loop it is made in a thread.

    >>> off_loop(max, 1, 2)
    2
    """
    return wait_for(asyncio.to_thread(function, *arguments)) if on_event_loop() else function(*arguments)


async def in_greenlet(function: Callable[..., Result], *arguments: Any) -> Result:
    """Call a synchronous function whose `wait_for` does not block the event loop; one at a time in a task."""
    bridged = _Bridged(function, getcurrent())
    # What the function sets is seen by what it waits for, too.
    bridged.gr_context = getcurrent().gr_context
    result = bridged.switch(*arguments)
    while not bridged.dead:
        try:
            value = await result
        except BaseException as error:
            result = bridged.throw(error)
        else:
            result = bridged.switch(value)
    final: Result = result
    return final
