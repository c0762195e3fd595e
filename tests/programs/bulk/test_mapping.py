"""The event loop of a bulk: what a signal leaves time for."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from programs.bulk import mapping
from programs.lm.ledger import Ledger
from programs.runtime.greenlets import wait_for

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals as POSIX has them")


def interrupted(seconds_after: float, elements: int = 4) -> tuple[list[int], list[int]]:
    """The elements that began and those that ended: the signal comes in the first one, which all wait for."""
    began: list[int] = []
    ended: list[int] = []

    def work(element: int) -> int:
        began.append(element)
        if element == 0:
            os.kill(os.getpid(), signal.SIGINT)
        wait_for(asyncio.sleep(seconds_after))
        ended.append(element)
        return element

    loop = mapping.Loop(Ledger())
    try:
        with pytest.raises(KeyboardInterrupt):
            list(loop.map(work, range(1_000), ahead=elements))
    finally:
        loop.close()
    return began, ended


def test_what_is_under_way_at_ctrl_c_gets_time_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "GRACE", 60.0)
    assert interrupted(0.2) == ([0, 1, 2, 3], [0, 1, 2, 3])


def test_what_does_not_end_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mapping, "GRACE", 0.05)
    assert interrupted(600.0) == ([0, 1, 2, 3], [])
