"""Adaptive concurrency: calls in flight grow additively and are halved on overload (AIMD, as in TCP)."""

from __future__ import annotations

INITIAL_LIMIT = 8


class AdaptiveConcurrency:
    """Additive increase, multiplicative decrease of the calls in flight. Not safe to use from several threads at once.

    The limit doubles with every round of answers until the first overload (slow start), and grows by one per round
    after it. Only answers that came while the whole limit was in use count.

    Args:
        maximum: What `limit` never exceeds.
    """

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self._threshold = float(maximum)
        self._limit = float(min(INITIAL_LIMIT, maximum))
        self._decreases = 0

    @property
    def limit(self) -> int:
        """Calls that may be in flight now, from 1 to `maximum`."""
        return int(self._limit)

    @property
    def decreases(self) -> int:
        """Number of halvings so far; a call remembers how many there were when it was sent."""
        return self._decreases

    def record_success(self, in_flight: int) -> None:
        """A call was answered while `in_flight` calls were under way, itself included."""
        if in_flight >= self.limit:
            grown = self._limit + (1.0 if self._limit < self._threshold else 1.0 / self._limit)
            self._limit = min(grown, float(self.maximum))

    def record_overload(self, decreases: int) -> bool:
        """A call was rejected because the backend is overloaded.

        Args:
            decreases: What `decreases` was when the call was sent.

        Returns:
            Whether the limit was halved; only the first of several calls that were sent under the same limit does it.
        """
        if decreases != self._decreases:
            return False
        self._decreases += 1
        self._threshold = max(1.0, self._limit / 2)
        self._limit = self._threshold
        return True
