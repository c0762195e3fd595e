"""Questions asked in bulk, on an event loop of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import dspy

from programs.bulk.backends import BulkBackends
from programs.bulk.driver import Driver
from programs.bulk.mapping import Loop
from programs.lm.backends import Backends

Element = TypeVar("Element")
Result = TypeVar("Result")


@contextmanager
def in_bulk(backends: Backends) -> Iterator[BulkBackends]:
    """The same backends, to be asked inside `mapped`."""
    driver, loop = Driver(dspy.cache), Loop(backends.ledger)
    bulk = BulkBackends(backends, driver)
    bulk.loop = loop  # type: ignore[attr-defined]
    try:
        yield bulk
    finally:
        loop.run(driver.close())
        loop.close()


def mapped(
    bulk: BulkBackends, function: Callable[[Element], Result], elements: Iterable[Element], ahead: int = 8
) -> list[Result]:
    """Results in order."""
    return list(bulk.loop.map(function, elements, ahead))  # type: ignore[attr-defined]
