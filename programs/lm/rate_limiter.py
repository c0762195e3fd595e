"""Where the calls of one backend, whatever their role, wait for their turn: slots, limits a minute, pauses, death."""

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
from programs.lm.ledger import Ledger
from programs.lm.limits import MOST_IN_FLIGHT, Limits
from programs.lm.sliding_window import SlidingWindow, Taken

LONGEST_PAUSE = 60.0
LONGEST_ASKED = 600.0
"""Seconds a backend may ask us to wait; one that asks for more counts as dead until then."""

_FIRST_PAUSE = 1.0
_PERIOD = 0.2
_OVERLOADED = (503, 529)


def is_overload(error: BaseException | None) -> bool:
    """Whether a call was turned away because the backend has too much to do; every call to it should then wait."""
    return isinstance(error, LMRateLimitError) or getattr(error, "status", None) in _OVERLOADED


@dataclass(frozen=True)
class Permit:
    """A call that was let through.

    Attributes:
        round: Of the window, see there.
        probe: Whether it finds out if a dead backend has come back.
        tokens: What it took of the tokens a minute, where there is such a limit.
        waited: Seconds until it was let through.
    """

    round: int
    probe: bool
    tokens: Taken | None
    waited: float


class RateLimiter:
    """Lets calls to one backend through in the order in which they came, as fast as it can do with.

    A call turned away because of overload (429, 503, 529) halves the calls in flight and holds all others back too:
    as long as the server asks, else for a time that doubles from 1 to 60 seconds until a call succeeds, with jitter
    either way, so that several processes do not come back at once. A server that asks for more than `LONGEST_ASKED`
    counts as dead until then: a day's quota is spent, and a run that sleeps through it tells nobody.

    Args:
        backend: Its name in messages.
        limits: What may never be passed.
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
        self.window = AdaptiveConcurrency(limits.concurrency or MOST_IN_FLIGHT)
        self._clock = clock
        self._jitter = jitter
        self._requests = None if limits.rpm is None else SlidingWindow(limits.rpm)
        self._tokens = None if limits.tpm is None else SlidingWindow(limits.tpm)
        self._circuit = CircuitBreaker(backend)
        self._lock = threading.Lock()
        self._queue: deque[threading.Condition] = deque()
        self._in_flight = 0
        self._paused_until = 0.0
        self._pauses = 0

    def enter(self, tokens: int, ledger: Ledger) -> Permit:
        """Wait for a turn. Every turn must be given back with `leave`.

        Args:
            tokens: What the call may take at most, prompt and answer together.
            ledger: Whose `stop` ends the wait.

        Raises:
            BudgetExceededError: after `ledger.stop`.
            BackendDownError: if the backend counts as dead.
        """
        came = self._clock()
        me = threading.Condition(self._lock)
        with self._lock:
            self._queue.append(me)
            try:
                while True:
                    ledger.wait(0)
                    now = self._clock()
                    self._circuit.require(now)
                    if self._queue[0] is me:
                        delay = self._delay(tokens, now)
                        if delay <= 0:
                            return self._let_through(tokens, came, now)
                    else:
                        delay = _PERIOD
                    # Not longer: a stopped ledger wakes nobody.
                    me.wait(min(delay, _PERIOD))
            finally:
                self._queue.remove(me)
                self._call_next()

    def _delay(self, tokens: int, now: float) -> float:
        if self._in_flight >= self.window.size:
            return _PERIOD
        delay = self._paused_until - now
        if self._requests is not None:
            delay = max(delay, self._requests.delay(1, now))
        if self._tokens is not None:
            delay = max(delay, self._tokens.delay(tokens, now))
        return delay

    def _let_through(self, tokens: int, came: float, now: float) -> Permit:
        self._in_flight += 1
        if self._requests is not None:
            self._requests.take(1, now)
        taken = None if self._tokens is None else self._tokens.take(tokens, now)
        return Permit(self.window.round, self._circuit.sent(), taken, now - came)

    def leave(self, turn: Permit, tokens: int | None, error: BaseException | None = None) -> None:
        """Give a turn back.

        Args:
            tokens: What the call took, None where that is not known.
            error: How it failed, None if it was answered.
        """
        with self._lock:
            now = self._clock()
            if turn.tokens is not None and self._tokens is not None and tokens is not None:
                self._tokens.settle(turn.tokens, tokens)
            self._circuit.came_back(error, turn.probe, now)
            if error is None:
                self.window.succeeded(self._in_flight)
                if turn.round == self.window.round:
                    self._pauses = 0
            elif is_overload(error):
                asked = getattr(error, "retry_after", None)
                first = self.window.overloaded(turn.round)
                if error is not None and asked is not None and asked > LONGEST_ASKED:
                    self._circuit.asks_for_rest(error, now + asked)
                else:
                    self._hold_back(first, asked, now)
            self._in_flight -= 1
            self._wake()

    def try_again(self) -> None:
        """Forget that the backend was found dead, unless it asked to be left alone for longer."""
        with self._lock:
            if not self._circuit.rests:
                self._circuit = CircuitBreaker(self.backend)

    def lost(self, error: Exception) -> None:
        """A call failed in spite of its retries: a few in a row, and the backend counts as dead."""
        with self._lock:
            self._circuit.lost(error, self._clock())
            self._wake()

    def _hold_back(self, first: bool, asked: float | None, now: float) -> None:
        if asked is not None:
            # Never earlier than asked, and later by so little that it does not matter.
            seconds = asked + min(1.0, asked / 10) * self._jitter()
        elif first:
            seconds = min(LONGEST_PAUSE, _FIRST_PAUSE * 2.0**self._pauses) * (1 + self._jitter() / 2)
        else:
            return
        self._pauses += first
        self._paused_until = max(self._paused_until, now + seconds)

    def _wake(self) -> None:
        if self._circuit.is_open:
            for one in self._queue:
                one.notify()
        else:
            self._call_next()

    def _call_next(self) -> None:
        if self._queue:
            self._queue[0].notify()
