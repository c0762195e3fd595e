"""After the deadline of a request nothing is sent for it, in threads as on an event loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import dspy
import pytest

from programs.bulk.mapping import Loop
from programs.lm.backends import Backends
from programs.lm.deadline import Deadline, DeadlineError, before, wait_in_time
from programs.lm.ledger import Ledger
from programs.lm.limits import Limits
from signatures.mote import DistillTraits
from tests.support.backends import roles_on
from tests.support.bulk import in_bulk
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user, sensible

SECONDS = 0.6
"""That the server takes for each answer, one after the other."""

PREDICTOR = dspy.Predict(DistillTraits)

Wanted = tuple[str, float]
"""A product, and seconds until nobody waits for its traits."""


def slow(body: Body) -> Reply:
    return replace(sensible(body), seconds=SECONDS)


def one_at_a_time(server: FakeOpenAI) -> Backends:
    return Backends(roles_on(server), limits={server.model(): Limits(concurrency=1)})


def answered(backends: Backends) -> Callable[[Wanted], bool]:
    """Whether a question was answered in time."""

    def ask(wanted: Wanted) -> bool:
        product, seconds = wanted
        with before(Deadline(time.monotonic() + seconds)):
            try:
                return bool(backends.ask("mote", PREDICTOR, product=product).traits)
            except DeadlineError:
                return False

    return ask


def asked(server: FakeOpenAI) -> list[str]:
    """The products that were sent, in order."""
    return [last_user(body).split("]]")[1].split("\n")[1] for body in server.bodies]


def on_a_loop(backends: Backends, wanted: list[Wanted]) -> list[bool]:
    with in_bulk(backends) as bulk:
        loop: Loop = bulk.loop  # type: ignore[attr-defined]
        return list(loop.map(answered(bulk), wanted, len(wanted)))


def in_threads(backends: Backends, wanted: list[Wanted]) -> list[bool]:
    with ThreadPoolExecutor(len(wanted)) as threads:
        waiting = []
        for one in wanted:  # one after the other, so that they stand in line in this order
            waiting.append(threads.submit(answered(backends), one))
            time.sleep(0.05)
        return [one.result() for one in waiting]


@pytest.mark.parametrize("ask", [on_a_loop, in_threads])
def test_what_waits_for_a_permit_is_not_sent_after_its_deadline(
    ask: Callable[[Backends, list[Wanted]], list[bool]],
) -> None:
    with FakeOpenAI(slow) as server:
        backends = one_at_a_time(server)
        # The first is in flight at its deadline: it is paid, so it ends. The second waits, the third goes on.
        assert ask(backends, [("first", 0.4), ("second", 0.3), ("third", 30.0)]) == [True, False, True]
        assert asked(server) == ["first", "third"]
        assert backends.ledger.total().calls == 2


def test_on_a_loop_it_is_sent_as_long_as_another_request_waits_for_it() -> None:
    with FakeOpenAI(slow) as server:
        backends = one_at_a_time(server)
        wanted = [("first", 30.0), ("shared", 0.3), ("last", 30.0), ("shared", 30.0), ("shared", 0.3)]
        assert on_a_loop(backends, wanted) == [True, True, True, True, False]
        assert asked(server) == ["first", "shared", "last"], "it keeps its place in the line"


def test_the_deadline_of_one_request_is_not_that_of_another() -> None:
    with FakeOpenAI(slow) as server:
        wanted = [(f"item {n}", 0.3 if n else 30.0) for n in range(4)] + [("late", 30.0)]
        assert on_a_loop(one_at_a_time(server), wanted) == [True, False, False, False, True]


@pytest.mark.parametrize("ask", [on_a_loop, in_threads])
def test_the_pause_before_another_attempt_ends_with_the_deadline(
    ask: Callable[[Backends, list[Wanted]], list[bool]],
) -> None:
    with FakeOpenAI(lambda body: Reply("busy", status=500, headers={"Retry-After": "20"})) as server:
        began = time.monotonic()
        assert ask(Backends(roles_on(server)), [("a cup", 0.4)]) == [False]
        assert time.monotonic() - began < 5
        assert len(server.bodies) == 1


def test_a_wait_ends_with_the_deadline() -> None:
    began = time.monotonic()
    with before(Deadline(began + 0.1)), pytest.raises(DeadlineError):
        wait_in_time(Ledger(), 30.0)
    assert time.monotonic() - began < 5
    wait_in_time(Ledger(), 0.0)
