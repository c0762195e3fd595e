"""Holder whose value is shared, not copied, by deepcopy."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class NoCopy(Generic[T]):
    """Holds a value that deep copies share: a large read-only object, or a handle.

    Optimizers deep-copy programs many times; a catalogue or a fitted prior must not be copied each time.
    """

    def __init__(self, value: T) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, object]) -> NoCopy[T]:
        return self
