"""Synchronous code on an event loop: what computes for long leaves the loop to the others."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import ContextVar

import pytest

from programs.runtime.greenlets import in_greenlet, off_loop, on_event_loop

OF_REQUEST: ContextVar[str] = ContextVar("of_request", default="none")


def test_a_computation_in_a_thread_holds_up_nobody_and_knows_its_request() -> None:
    here = threading.get_ident()
    done = []

    def computation(name: str) -> tuple[str, str, bool]:
        time.sleep(0.3)
        assert not on_event_loop()
        return name, OF_REQUEST.get(), threading.get_ident() == here

    def request(name: str) -> tuple[str, str, bool]:
        OF_REQUEST.set(name)
        found = off_loop(computation, name)
        done.append(name)
        return found

    async def run() -> list[tuple[str, str, bool]]:
        long = [asyncio.create_task(in_greenlet(request, name)) for name in ("a", "b")]
        await asyncio.sleep(0)
        assert not done
        return list(await asyncio.gather(*long))

    began = time.monotonic()
    assert asyncio.run(run()) == [("a", "a", False), ("b", "b", False)]
    assert time.monotonic() - began < 0.55
    assert request("c") == ("c", "c", True), "without an event loop it is made here"


def test_its_errors_are_raised_where_it_is_asked_for() -> None:
    def request() -> None:
        with pytest.raises(ZeroDivisionError):
            off_loop(lambda: 1 / 0)

    asyncio.run(in_greenlet(request))
