"""What deep copies share: optimizers deep-copy programs many times, and not all they hold may be copied each time."""

from __future__ import annotations

from typing import Generic, Self, TypeVar

T = TypeVar("T")


class SharedByCopies:
    """A base of classes whose deep copies are the same object: handles, and what counts money or keeps answers."""

    def __deepcopy__(self, memo: dict[int, object]) -> Self:
        return self


class NoCopy(SharedByCopies, Generic[T]):
    """Holds a value that deep copies share: a large read-only object, such as a catalogue or a fitted prior."""

    def __init__(self, value: T) -> None:
        self.value = value
