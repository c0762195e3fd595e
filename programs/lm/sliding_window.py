"""Sliding-window limit: at most so much in any sixty seconds, counted exactly."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MINUTE = 60.0


@dataclass
class Reservation:
    """An amount reserved at a time; an upper estimate until it is settled."""

    at: float
    amount: int


class SlidingWindow:
    """At most `limit` in any sixty seconds. Not thread-safe: `RateLimiter` holds the lock.

    Times are seconds of one clock, given by the caller and never going back.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._reserved: deque[Reservation] = deque()
        self._sum = 0

    def delay(self, amount: int, now: float) -> float:
        """Seconds until `amount` may be reserved, 0 for now.

        More than the whole limit may be reserved when nothing else is: an upper estimate must not block a run for ever.
        """
        while self._reserved and self._reserved[0].at <= now - MINUTE:
            self._sum -= self._reserved.popleft().amount
        excess = self._sum + amount - self.limit
        delay = 0.0
        for reservation in self._reserved:
            if excess <= 0:
                break
            excess -= reservation.amount
            delay = reservation.at + MINUTE - now
        return delay

    def reserve(self, amount: int, now: float) -> Reservation:
        """Count `amount` from now on; what was not used can be given back with `settle`."""
        reservation = Reservation(now, amount)
        self._reserved.append(reservation)
        self._sum += amount
        return reservation

    def settle(self, reservation: Reservation, amount: int) -> None:
        """Replace a reserved amount by what was used. Nothing changes once it has left the window."""
        if self._reserved and reservation.at >= self._reserved[0].at:
            self._sum += amount - reservation.amount
        reservation.amount = amount
