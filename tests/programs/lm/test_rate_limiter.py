"""The rate limiter: order, pauses, limits per minute, and a circuit breaker around it."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from dspy.utils.exceptions import LMAuthError

from programs.lm.adaptive_concurrency import INITIAL_LIMIT
from programs.lm.circuit_breaker import COOL_DOWN, BackendDownError
from programs.lm.ledger import Ledger
from programs.lm.limits import Limits
from programs.lm.rate_limiter import Permit, RateLimiter
from programs.runtime.errors import BudgetExceededError
from tests.support.failures import refused_connection, too_many
from tests.support.threads import Clock, eventually, in_thread


class Impatient(Ledger):
    """Ends a wait as soon as there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.looked = False

    def wait(self, seconds: float) -> None:
        if self.looked:
            self.stop("no patience")
        self.looked = True
        super().wait(seconds)


class TestRateLimiter:
    @staticmethod
    def make(clock: Clock | None = None, **limits: int) -> RateLimiter:
        return RateLimiter("it", Limits(**limits), clock or Clock(), jitter=lambda: 0.0)

    @staticmethod
    def at_once(limiter: RateLimiter) -> Permit | None:
        """A permit, if a call may be sent without waiting."""
        try:
            return limiter.acquire(1, Impatient())
        except BudgetExceededError:
            return None

    def test_never_more_are_in_flight_than_allowed_and_all_come_through(self) -> None:
        limiter = RateLimiter("it", Limits(concurrency=5))
        flying = 0
        most: list[int] = []
        lock = threading.Lock()

        def call(_: int) -> None:
            nonlocal flying
            permit = limiter.acquire(1, Ledger())
            with lock:
                flying += 1
                most.append(flying)
            time.sleep(0.002)
            with lock:
                flying -= 1
            limiter.release(permit, 1)

        with ThreadPoolExecutor(20) as pool:
            assert len(list(pool.map(call, range(200)))) == 200
        assert max(most) == 5

    def test_first_come_first_served(self) -> None:
        clock = Clock()
        limiter = self.make(clock, concurrency=1)
        permit = limiter.acquire(1, Ledger())
        order: list[int] = []
        threads = []
        for n in range(6):

            def call(n: int = n) -> None:
                mine = limiter.acquire(1, Ledger())
                order.append(n)
                limiter.release(mine, 1)

            threads.append(in_thread(call)[0])
            eventually(lambda n=n: clock.waiting() == n + 1)  # type: ignore[misc]
        limiter.release(permit, 1)
        for thread in threads:
            thread.join(60)
        assert order == list(range(6))

    def test_a_pause_holds_back_everybody_as_long_as_asked(self) -> None:
        clock = Clock()
        limiter = self.make(clock)
        limiter.release(limiter.acquire(1, Ledger()), None, too_many(retry_after=20.0))
        clock.now += 3
        _, came = in_thread(lambda: limiter.acquire(1, Ledger()))
        eventually(lambda: bool(limiter._queue))
        clock.now += 16.5
        time.sleep(0.5)  # The rate limiter looks at the clock at least that often.
        assert came == []
        clock.now += 0.6
        eventually(lambda: bool(came))
        assert came[0].waited == pytest.approx(17.1)

    def test_without_a_time_the_pause_doubles_until_a_call_succeeds(self) -> None:
        clock = Clock()
        limiter = self.make(clock)
        for seconds in (1, 2, 4, 8, 16, 32, 60, 60):
            limiter.release(limiter.acquire(1, Ledger()), None, too_many())
            clock.now += seconds - 0.25
            assert self.at_once(limiter) is None, seconds
            clock.now += 0.25
        limiter.release(limiter.acquire(1, Ledger()), 1)
        limiter.release(limiter.acquire(1, Ledger()), None, too_many())
        assert self.at_once(limiter) is None
        clock.now += 1
        assert self.at_once(limiter)

    def test_who_asks_for_longer_than_a_run_should_wait_counts_as_dead_until_then(self) -> None:
        clock = Clock()
        limiter = self.make(clock)
        limiter.release(limiter.acquire(1, Ledger()), None, too_many(retry_after=7200.0))
        clock.now += 3600
        limiter.reset()
        with pytest.raises(BackendDownError, match=r"is rate limiting us \(too many\); .* in 3600 s"):
            limiter.acquire(1, Ledger())
        clock.now += 3601
        limiter.release(limiter.acquire(1, Ledger()), 1)
        limiter.release(limiter.acquire(1, Ledger()), 1)

    def test_an_answer_that_was_under_way_does_not_end_the_rest(self) -> None:
        limiter = self.make(Clock())
        under_way = limiter.acquire(1, Ledger())
        limiter.release(limiter.acquire(1, Ledger()), None, too_many(retry_after=7200.0))
        limiter.release(under_way, 1)
        with pytest.raises(BackendDownError):
            limiter.acquire(1, Ledger())

    def test_what_was_dead_for_one_run_is_tried_by_the_next(self) -> None:
        limiter = self.make(Clock())
        limiter.record_failure(refused_connection())
        with pytest.raises(BackendDownError):
            limiter.acquire(1, Ledger())
        limiter.reset()
        limiter.release(limiter.acquire(1, Ledger()), 1)

    def test_many_turned_away_together_are_one_overload(self) -> None:
        clock = Clock()
        limiter = self.make(clock)
        permits = [limiter.acquire(1, Ledger()) for _ in range(INITIAL_LIMIT)]
        for permit in permits:
            limiter.release(permit, None, too_many())
        clock.now += 0.75
        assert self.at_once(limiter) is None
        clock.now += 0.25
        assert self.at_once(limiter)
        assert limiter.concurrency.limit == INITIAL_LIMIT // 2
        limiter.release(limiter.acquire(1, Ledger()), None, too_many())
        clock.now += 2
        assert self.at_once(limiter), "the second pause is twice the first"

    def test_jitter_makes_a_pause_longer_and_never_shorter(self) -> None:
        clock = Clock()
        limiter = RateLimiter("it", Limits(), clock, jitter=lambda: 1.0)
        limiter.release(limiter.acquire(1, Ledger()), None, too_many(retry_after=5.0))
        clock.now += 5.25
        assert self.at_once(limiter) is None
        clock.now += 0.25
        assert self.at_once(limiter)

    def test_requests_and_tokens_a_minute(self) -> None:
        clock = Clock()
        limiter = self.make(clock, rpm=3, tpm=100)
        first = limiter.acquire(90, Ledger())
        _, came = in_thread(lambda: limiter.acquire(20, Ledger()))
        time.sleep(0.3)
        assert came == [], "110 tokens may be taken"
        limiter.release(first, 10)
        eventually(lambda: bool(came))
        assert limiter.acquire(20, Ledger()).waited == 0
        _, fourth = in_thread(lambda: limiter.acquire(1, Ledger()))
        clock.now += 59
        time.sleep(0.3)
        assert fourth == [], "three requests a minute"
        clock.now += 1
        eventually(lambda: bool(fourth))

    @pytest.mark.parametrize("held_by", ["a slot", "a pause", "a minute"])
    def test_a_stop_ends_every_wait(self, held_by: str) -> None:
        clock = Clock()
        limiter = self.make(clock, concurrency=1, **({"rpm": 1} if held_by == "a minute" else {}))
        permit = limiter.acquire(1, Ledger())
        if held_by != "a slot":
            limiter.release(permit, None, too_many(600.0) if held_by == "a pause" else None)
        stopped, other = Ledger(), Ledger()
        waiting = [in_thread(lambda: limiter.acquire(1, stopped)) for _ in range(4)]
        _, going = in_thread(lambda: limiter.acquire(1, other))
        eventually(lambda: clock.waiting() == 5)
        stopped.stop("interrupted")
        for thread, came in waiting:
            thread.join(60)
            assert isinstance(came[0], BudgetExceededError)
        assert going == [], "another run's calls wait on"
        other.stop("too")

    def test_death_ends_every_wait(self) -> None:
        clock = Clock()
        limiter = self.make(clock, concurrency=1)
        permit = limiter.acquire(1, Ledger())
        waiting = [in_thread(lambda: limiter.acquire(1, Ledger())) for _ in range(4)]
        eventually(lambda: clock.waiting() == 4)
        limiter.release(permit, None, LMAuthError("invalid key"))
        for thread, came in waiting:
            thread.join(60)
            assert isinstance(came[0], BackendDownError)

    def test_a_lone_call_finds_out_whether_a_dead_backend_is_back(self) -> None:
        clock = Clock()
        limiter = self.make(clock)
        limiter.record_failure(refused_connection())
        with pytest.raises(BackendDownError):
            limiter.acquire(1, Ledger())
        clock.now += COOL_DOWN
        probe = limiter.acquire(1, Ledger())
        with pytest.raises(BackendDownError):
            limiter.acquire(1, Ledger())
        limiter.release(probe, 1)
        limiter.release(limiter.acquire(1, Ledger()), 1)

    def test_a_permit_that_was_not_used_counts_for_no_limit(self) -> None:
        limiter = self.make(rpm=1, tpm=100, concurrency=1)
        for _ in range(3):
            limiter.not_sent(limiter.acquire(100, Ledger()))
        limiter.release(limiter.acquire(100, Ledger()), 100)
        assert self.at_once(limiter) is None, "this one was sent"

    def test_a_probe_that_was_not_sent_says_nothing_and_another_is_due(self) -> None:
        clock = Clock()
        limiter = self.make(clock)
        limiter.record_failure(refused_connection())
        clock.now += COOL_DOWN
        limiter.not_sent(limiter.acquire(1, Ledger()))
        probe = limiter.acquire(1, Ledger())
        with pytest.raises(BackendDownError, match="a probe is under way"):
            limiter.acquire(1, Ledger())
        limiter.release(probe, 1)
        assert self.at_once(limiter) is not None
