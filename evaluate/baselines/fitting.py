"""Where fits are kept between epochs and between runs, and who is told about their progress."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from programs.runtime.events import Note, OnEvent, ignore
from programs.runtime.lock import awaited


@dataclass(frozen=True)
class Fitting:
    """How a baseline is fitted, apart from what decides the result.

    Attributes:
        root: Folder of kept fits, each in a folder of its own (`Baseline.fit_folder`); None keeps none.
        on_event: Told about progress and loss.
    """

    root: Path | None = None
    on_event: OnEvent = ignore


UNKEPT = Fitting()
"""Keeps no fit and tells nobody."""


def held(folder: Path, task: str, on_event: OnEvent) -> AbstractContextManager[None]:
    """Hold the folder of a kept fit inside the block, after a process that fits the same now.

    Args:
        task: What is fitted, for the note that it waits.
    """
    return awaited(folder, lambda holder: on_event(Note(f"{task}: waiting for process {holder}, which fits the same")))
