"""Index of a folder: which folders below it are runs, studies, comparisons, compiles and artifacts."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from evaluate.experiments.grid_report import RECORD
from evaluate.protocol.cases import header_of, is_cases_file
from evaluate.runs.directory import JOURNAL, LEDGER, MANIFEST
from evaluate.runs.journal import RunManifest
from optimize.artifact import ARTIFACT_FORMAT, SEARCH_FOLDER
from optimize.compiler import PLAN
from programs.runtime.errors import InputError, quoted
from programs.runtime.lock import LOCK
from programs.runtime.untrusted import read_untrusted

FolderKind = Literal["run", "study", "comparison", "compile", "artifact"]

DEEPEST = 8
"""Folders below the viewed one that are looked into: a study's runs lie at most five below its own."""

_RUN_FORMAT = str(RunManifest.model_fields["format"].default)


@dataclass(frozen=True)
class ViewedFolder:
    """A folder that the view shows.

    Attributes:
        name: Its path relative to the viewed folder, with `/`; `.` is that folder itself.
    """

    kind: FolderKind
    name: str
    path: Path


@dataclass(frozen=True)
class Contents:
    """What lies below a folder.

    Attributes:
        cases: Cases files by the hash that their header names; copies, or files that name a hash that is not theirs.
    """

    found: tuple[ViewedFolder, ...]
    cases: Mapping[str, Sequence[Path]]

    def of_kind(self, kind: FolderKind) -> list[ViewedFolder]:
        """The folders of one kind, by name."""
        return [one for one in self.found if one.kind == kind]

    def named(self, kind: FolderKind, name: str) -> ViewedFolder:
        """The folder of that kind and name. Names come from addresses: only those that were found are opened.

        Raises:
            InputError: if there is none.
        """
        for one in self.of_kind(kind):
            if one.name == name:
                return one
        raise InputError(f"there is no {kind} {quoted(name)} in this folder; go back to the list of runs")


def contents_of(root: Path, *more_cases: Path) -> Contents:
    """Look through a folder; symbolic links and hidden folders are not followed.

    Args:
        root: The folder to show.
        more_cases: Cases files, or folders with some, that lie elsewhere.
    """
    found: list[ViewedFolder] = []
    cases: defaultdict[str, list[Path]] = defaultdict(list)
    for folder, files in _walk(root):
        for sha256, path in _cases_in(folder, files):
            cases[sha256].append(path)
        name = folder.relative_to(root).as_posix()
        kind = _kind_of(folder, files)
        if kind is not None:
            found.append(ViewedFolder(kind, name, folder))
    runs = {one.name for one in found if one.kind == "run"}
    for name in {above.as_posix() for run in runs for above in Path(run).parents} - runs:
        kind = _kind_above_runs(root / name, runs, name)
        if kind is not None:
            found.append(ViewedFolder(kind, name, root / name))
    for place in more_cases:
        for folder, files in [(place.parent, [place.name])] if place.is_file() else _walk(place):
            for sha256, path in _cases_in(folder, files):
                cases[sha256].append(path)
    return Contents(tuple(sorted(found, key=lambda one: one.name)), dict(cases))


def require_cases(place: Path) -> None:
    """Check a place that cases are to be read from. A folder may get them later.

    Raises:
        InputError: if it is neither a folder nor a cases file.
    """
    if place.is_dir():
        return
    if not place.is_file():
        raise InputError(f"{place}: no such file or folder; give the cases file of your runs, or the folder it lies in")
    if not any(_cases_in(place.parent, [place.name])):
        raise InputError(f"{place}: no cases file; give one that `mllm3rec cases` wrote, with a name in .jsonl")


def _walk(root: Path) -> Iterator[tuple[Path, list[str]]]:
    for folder, below, files in os.walk(root):
        here = Path(folder)
        deep = len(here.relative_to(root).parts)
        below[:] = sorted(name for name in below if not name.startswith(".")) if deep < DEEPEST else []
        yield here, files


def _kind_of(folder: Path, files: list[str]) -> FolderKind | None:
    if (folder / SEARCH_FOLDER / PLAN).is_file():
        return "compile"
    if MANIFEST not in files:
        return None
    written = _format_of(folder / MANIFEST)
    return "run" if written == _RUN_FORMAT else "artifact" if written == ARTIFACT_FORMAT else None


def _format_of(manifest: Path) -> object:
    try:
        content = orjson.loads(read_untrusted(manifest))
    except (InputError, orjson.JSONDecodeError):
        return None
    return content.get("format") if isinstance(content, dict) else None


def _kind_above_runs(folder: Path, runs: set[str], name: str) -> FolderKind | None:
    """Both are locked as a whole; a comparison has its runs directly in it, a study below its datasets."""
    if (folder / RECORD).is_file():
        return "comparison"
    if not ((folder / LOCK).is_file() or (folder / "report" / "report.html").is_file()):
        return None
    return "comparison" if any(Path(run).parent.as_posix() == name for run in runs) else "study"


def _cases_in(folder: Path, files: list[str]) -> Iterator[tuple[str, Path]]:
    for name in files:
        path = folder / name
        if name.endswith(".jsonl") and name not in (JOURNAL, LEDGER) and not path.is_symlink():
            try:
                if is_cases_file(path):
                    yield str(orjson.loads(header_of(path))["sha256"]), path
            except (orjson.JSONDecodeError, KeyError, TypeError, InputError, OSError):
                continue
