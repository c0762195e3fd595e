"""Sessions of runs by batches, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dspy
import pytest

from programs.batch import run
from programs.runtime.environment import variable


@pytest.fixture(autouse=True)
def hurried_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at jobs follow each other at once."""
    monkeypatch.setattr(run, "LOOK_EVERY", (0.0, 0.0))
    monkeypatch.setattr(run, "SETTLING", 0.0)
    monkeypatch.setattr(run, "_FIRST_PAUSE", 0.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Folders, each with a cache of its own."""
    before = dspy.cache

    def made(name: str) -> Path:
        monkeypatch.setenv(variable("cache"), str(tmp_path / name / "cache"))
        return tmp_path / name

    yield made
    dspy.cache = before
