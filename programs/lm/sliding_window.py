"""A limit per minute, kept exactly: what was taken in the last sixty seconds is remembered, not estimated."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MINUTE = 60.0


@dataclass
class Taken:
    """An amount taken at a time, until it is settled an upper estimate."""

    at: float
    amount: int


class SlidingWindow:
    """At most so much in any sixty seconds. Not thread-safe: `RateLimiter` holds the lock.

    Times are seconds of one clock, given by the caller and never going back.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._taken: deque[Taken] = deque()
        self._sum = 0

    def delay(self, amount: int, now: float) -> float:
        """Seconds until `amount` may be taken, 0 for now.

        More than the whole limit may be taken when nothing else is: an estimate from above must not end a run.
        """
        while self._taken and self._taken[0].at <= now - MINUTE:
            self._sum -= self._taken.popleft().amount
        excess = self._sum + amount - self.most
        delay = 0.0
        for taken in self._taken:
            if excess <= 0:
                break
            excess -= taken.amount
            delay = taken.at + MINUTE - now
        return delay

    def take(self, amount: int, now: float) -> Taken:
        """Take `amount`; what is given back can be settled later."""
        taken = Taken(now, amount)
        self._taken.append(taken)
        self._sum += amount
        return taken

    def settle(self, taken: Taken, amount: int) -> None:
        """Say what was really taken. What has left the window by then makes no difference."""
        if self._taken and taken.at >= self._taken[0].at:
            self._sum += amount - taken.amount
        taken.amount = amount
