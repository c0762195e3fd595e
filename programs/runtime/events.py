"""Events of long work: notes and progress, for a callback of a console or a notebook."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from signatures.rows import Usage


@dataclass(frozen=True)
class Note:
    """A message of one sentence."""

    text: str


@dataclass(frozen=True)
class KeptFit(Note):
    """A note that a fit, or a part of it, was found in a folder and need not be made.

    Attributes:
        folder: Folder of the fit.
    """

    folder: Path


@dataclass(frozen=True)
class Progress:
    """Progress of a task.

    Attributes:
        task: Name of the task, the same in all of its events.
        done, total: Steps; the task is finished when they are equal.
        usage: Calls and dollars so far; None without a language model.
        detail: What else there is to say, such as the loss of a training.
    """

    task: str
    done: int
    total: int
    usage: Usage | None = None
    detail: str = ""


Event = Note | Progress
OnEvent = Callable[[Event], None]
"""Called by whichever thread has something to tell: that of the work, where an exception it raises ends the work like
Ctrl-C, or one of its workers (a model is loaded, a text is refused), where it fails what that worker is at."""


def ignore(event: Event) -> None:
    """A callback that does nothing."""
