"""Where fits are kept between epochs and between runs, and who is told about their progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from programs.runtime.events import OnEvent, ignore


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
