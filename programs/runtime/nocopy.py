"""Holder whose value is shared, not copied, by deepcopy."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class NoCopy(Generic[T]):
    """Holds a value that deep copies share: large and read-only, or a handle on something outside.

    Optimizers deep-copy programs by the dozen; a catalogue or a fitted prior must not be copied along.
    """

    def __init__(self, value: T) -> None:
        self.value = value

    def __deepcopy__(self, memo: dict[int, object]) -> NoCopy[T]:
        return self
