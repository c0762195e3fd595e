"""How many calls a backend can do with at a time, found out as TCP does: growing on success, halved on overload."""

from __future__ import annotations

START = 8


class AdaptiveConcurrency:
    """Additive increase, multiplicative decrease of the calls in flight. Not safe to use from several threads at once.

    It doubles with every round of answers up to the size at which the backend was overloaded, and from there on
    grows by one a round. Only answers that came while all of it was in use say anything about its size.

    Attributes:
        size: Most calls in flight now, from 1 to `most`.
        most: What `size` never passes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._threshold = float(most)
        self._size = float(min(START, most))
        self._round = 0

    @property
    def size(self) -> int:
        """See the class."""
        return int(self._size)

    @property
    def round(self) -> int:
        """Number of halvings so far; a call remembers the one it was sent in."""
        return self._round

    def succeeded(self, in_flight: int) -> None:
        """A call was answered while so many were in flight, itself included."""
        if in_flight >= self.size:
            grown = self._size + (1.0 if self._size < self._threshold else 1.0 / self._size)
            self._size = min(grown, float(self.most))

    def overloaded(self, sent_in: int) -> bool:
        """A call sent in that round was turned away because the backend has too much to do.

        Returns:
            Whether the window was halved: not for the other calls of the same round, whose fate says the same.
        """
        if sent_in != self._round:
            return False
        self._round += 1
        self._threshold = max(1.0, self._size / 2)
        self._size = self._threshold
        return True
