"""Events of long work: notes and progress for whoever listens, a console or a notebook; nothing here prints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from signatures.rows import Usage


@dataclass(frozen=True)
class Note:
    """One thing worth knowing, in one sentence."""

    text: str


@dataclass(frozen=True)
class Progress:
    """How far a task has come.

    Attributes:
        task: What is being done, the same text from its first event to its last.
        done, total: Steps; a task is finished where they are equal.
        usage: Calls and dollars so far; None where no language model is asked.
    """

    task: str
    done: int
    total: int
    usage: Usage | None = None


Event = Note | Progress
OnEvent = Callable[[Event], None]
"""Called in the thread that drives the work; an exception it raises ends the work like Ctrl-C."""


def ignore(event: Event) -> None:
    """The listener of work that nobody watches."""
