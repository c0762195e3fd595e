"""Per-backend rate limiter: adaptive concurrency, limits per minute, back-off after 429, circuit breaker."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from dspy.utils.exceptions import LMRateLimitError

from programs.lm.adaptive_concurrency import AdaptiveConcurrency
from programs.lm.circuit_breaker import CircuitBreaker
from programs.lm.deadline import current_deadline
from programs.lm.ledger import Ledger
from programs.lm.limits import DEFAULT_CONCURRENCY, Limits
from programs.lm.sliding_window import Reservation, SlidingWindow

MAX_BACKOFF = 60.0
"""Longest pause in seconds if the server requests none."""

MAX_RETRY_AFTER = 600.0
"""Longest pause in seconds a server may ask for; a longer one opens the circuit until then."""

_FIRST_BACKOFF = 1.0
_POLL = 0.2
_OVERLOADED = (503, 529)


def is_overload(error: BaseException | None) -> bool:
    """Whether a call was rejected because the backend is overloaded (429, 503, 529); every call to it should wait."""
    return isinstance(error, LMRateLimitError) or getattr(error, "status", None) in _OVERLOADED


@dataclass(frozen=True)
class Permit:
    """Permission to send one call.

    Attributes:
        decreases: Of the concurrency limit when the permit was given (see `AdaptiveConcurrency`).
        probe: Whether the call is the probe of an open circuit.
        tokens: Tokens reserved of the limit per minute, if there is one.
        waited: Seconds until it was given.
        request: Reserved of the requests per minute, if there is such a limit.
    """

    decreases: int
    probe: bool
    tokens: Reservation | None
    waited: float
    request: Reservation | None = None


class RateLimiter:
    """Sends the calls of one backend in the order in which they came, as fast as the backend and its limits allow.

    A call rejected because of overload halves the calls in flight and pauses all others: as long as the server asks
    (`Retry-After`), else for a time that doubles from 1 to 60 seconds until a call succeeds, with jitter either way,
    so that several processes do not come back at once. A server that asks for more than `MAX_RETRY_AFTER` opens the
    circuit until then: the daily quota is exhausted, and a run should fail visibly instead of sleeping for hours.

    Args:
        backend: Its name in messages.
        limits: What is never exceeded.
        clock: Seconds that never go back.
        jitter: Between 0 and 1, drawn for every pause.
    """

    def __init__(
        self,
        backend: str,
        limits: Limits,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self.backend = backend
        self.limits = limits
        self.concurrency = AdaptiveConcurrency(limits.concurrency or DEFAULT_CONCURRENCY)
        self._clock = clock
        self._jitter = jitter
        self._requests = None if limits.rpm is None else SlidingWindow(limits.rpm)
        self._tokens = None if limits.tpm is None else SlidingWindow(limits.tpm)
        self._circuit = CircuitBreaker(backend)
        self._lock = threading.RLock()
        self._queue: deque[threading.Condition] = deque()
        self._in_flight = 0
        self._paused_until = 0.0
        self._pauses = 0

    def acquire(self, tokens: int, ledger: Ledger) -> Permit:
        """Wait until a call may be sent. Every permit must be given back, with `release` or `not_sent`.

        The deadline of the request ends the wait, too.

        Args:
            tokens: Most tokens the call may take, prompt and answer together.
            ledger: Its `stop` ends the wait, and so does the end of its minutes.

        Raises:
            BudgetExceededError: after `ledger.stop`, if the minutes are over, or after the deadline of the request.
            BackendDownError: if the circuit is open.
        """
        came, deadline = self.now(), current_deadline()
        me = threading.Condition(self._lock)
        with self._lock:
            self._queue.append(me)
            try:
                while True:
                    ledger.require_time()
                    deadline.require()
                    delay = _POLL
                    if self._queue[0] is me:
                        permit = self.try_acquire(tokens, came)
                        if isinstance(permit, Permit):
                            return permit
                        delay = permit
                    else:
                        self._circuit.require(self.now())
                    # Not longer: a stopped ledger wakes no waiting thread.
                    me.wait(min(delay, _POLL))
            finally:
                self._queue.remove(me)
                self._wake_first()

    def try_acquire(self, tokens: int, came: float) -> Permit | float:
        """`acquire` without waiting, for callers that keep the order themselves.

        Args:
            tokens: As in `acquire`.
            came: `now()` when the caller began to wait.

        Returns:
            The permit, or seconds after which to try again; a call that ends may make room earlier.

        Raises:
            BackendDownError: if the circuit is open.
        """
        with self._lock:
            now = self.now()
            self._circuit.require(now)
            delay = self._delay(tokens, now)
            return self._permit(tokens, came, now) if delay <= 0 else delay

    def now(self) -> float:
        """Seconds on the clock of this limiter."""
        return self._clock()

    def _delay(self, tokens: int, now: float) -> float:
        if self._in_flight >= self.concurrency.limit:
            return _POLL
        delay = self._paused_until - now
        if self._requests is not None:
            delay = max(delay, self._requests.delay(1, now))
        if self._tokens is not None:
            delay = max(delay, self._tokens.delay(tokens, now))
        return delay

    def _permit(self, tokens: int, came: float, now: float) -> Permit:
        self._in_flight += 1
        request = None if self._requests is None else self._requests.reserve(1, now)
        reserved = None if self._tokens is None else self._tokens.reserve(tokens, now)
        return Permit(self.concurrency.decreases, self._circuit.start(), reserved, now - came, request)

    def not_sent(self, permit: Permit) -> None:
        """Give a permit back with which nothing was sent: no limit counts it."""
        with self._lock:
            for window, reserved in ((self._tokens, permit.tokens), (self._requests, permit.request)):
                if window is not None and reserved is not None:
                    window.settle(reserved, 0)
            self._circuit.not_sent(permit.probe)
            self._in_flight -= 1
            self._wake()

    def release(self, permit: Permit, tokens: int | None, error: BaseException | None = None) -> None:
        """Give the permit of a call that was sent back.

        Args:
            tokens: Tokens the call took, None if unknown.
            error: How it failed, None if it was answered.
        """
        with self._lock:
            now = self.now()
            if permit.tokens is not None and self._tokens is not None and tokens is not None:
                self._tokens.settle(permit.tokens, tokens)
            self._circuit.record(error, permit.probe, now)
            if error is None:
                self.concurrency.record_success(self._in_flight)
                if permit.decreases == self.concurrency.decreases:
                    self._pauses = 0
            elif is_overload(error):
                retry_after = getattr(error, "retry_after", None)
                first = self.concurrency.record_overload(permit.decreases)
                if error is not None and retry_after is not None and retry_after > MAX_RETRY_AFTER:
                    self._circuit.pause_until(error, now + retry_after)
                else:
                    self._pause(first, retry_after, now)
            self._in_flight -= 1
            self._wake()

    def record_failure(self, error: Exception) -> None:
        """A call failed in spite of its retries: a few in a row open the circuit."""
        with self._lock:
            self._circuit.record_failure(error, self.now())
            self._wake()

    def reset(self) -> None:
        """Close the circuit, unless the backend asked for a long pause."""
        with self._lock:
            if not self._circuit.paused:
                self._circuit = CircuitBreaker(self.backend)

    def _pause(self, first: bool, retry_after: float | None, now: float) -> None:
        if retry_after is not None:
            # Never earlier than requested, and only a little later.
            seconds = retry_after + min(1.0, retry_after / 10) * self._jitter()
        elif first:
            seconds = min(MAX_BACKOFF, _FIRST_BACKOFF * 2.0**self._pauses) * (1 + self._jitter() / 2)
        else:
            return
        self._pauses += first
        self._paused_until = max(self._paused_until, now + seconds)

    def _wake(self) -> None:
        if self._circuit.is_open:
            for waiting in self._queue:
                waiting.notify()
        else:
            self._wake_first()

    def _wake_first(self) -> None:
        if self._queue:
            self._queue[0].notify()
