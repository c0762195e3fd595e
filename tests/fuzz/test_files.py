"""Mutated files of every kind that a command reads."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from programs.runtime.errors import InputError
from tests.fuzz import INPUTS
from tests.fuzz.mutations import mutated
from tests.fuzz.oracle import Tally
from tests.fuzz.targets import TARGETS, write


@pytest.mark.parametrize("kind", TARGETS)
def test_sound_files_are_read(tmp_path: Path, kind: str) -> None:
    target = TARGETS[kind]
    write(target.files, tmp_path / "sound")
    assert target.read(tmp_path / "sound") is not None
    if target.repair is not None:
        target.repair(tmp_path / "sound")
        assert target.read(tmp_path / "sound") is not None


@pytest.mark.parametrize("kind", TARGETS)
def test_mutated_files_are_refused_or_read(tmp_path: Path, tally: Callable[[str], Tally], kind: str) -> None:
    target, found = TARGETS[kind], tally(kind)
    folder = tmp_path / "mutated"
    for number in range(max(5, INPUTS * target.share // 1000)):
        name = target.fuzzed[number % len(target.fuzzed)]
        write({**target.files, name: mutated(target.files[name], f"{kind}/{number}")}, folder)
        if target.repair is not None and number % 4 < 2:
            target.repair(folder)
        found.judge(f"{kind}/{number} ({name})", lambda: target.read(folder), InputError)
    found.assert_none()
