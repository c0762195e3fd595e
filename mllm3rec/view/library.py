"""What all pages of one view share: the folder, its runs and compiles, each opened once, and the notes."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from mllm3rec.view.case_lines import CaseLines
from mllm3rec.view.compile_state import ViewedCompile
from mllm3rec.view.folder import Contents, ViewedFolder, contents_of, require_cases
from mllm3rec.view.notes import NoteBook
from mllm3rec.view.run_facts import ViewedRun, stamp_of
from optimize.artifact import is_artifact, read_manifest
from programs.runtime.errors import InputError

SCAN_EVERY = 2.0
"""Least seconds between two looks for new folders."""


class Library:
    """Runs, studies, comparisons and compiles below one folder. Safe to use from several threads.

    Args:
        root: The viewed folder.
        more_cases: Cases files, or folders with some, that lie elsewhere.

    Raises:
        InputError: if it is not a folder, or one of `more_cases` is neither a folder nor a cases file.
    """

    def __init__(self, root: Path, more_cases: Sequence[Path] = ()) -> None:
        if not root.is_dir():
            raise InputError(f"{root}: no such folder; give the folder that your runs are in")
        for place in more_cases:
            require_cases(place)
        self.root = root.resolve()
        self.notes = NoteBook(self.root)
        self._more_cases = more_cases
        self._lock = threading.RLock()
        self._next_look = 0.0
        self._contents = Contents((), {})
        self._runs: dict[Path, ViewedRun] = {}
        self._cases: dict[str, CaseLines] = {}
        self._others: set[tuple[Path, object]] = set()

    @property
    def contents(self) -> Contents:
        """What lies in the folder, looked at again from time to time."""
        with self._lock:
            began = time.monotonic()
            if began >= self._next_look:
                self._contents = contents_of(self.root, *self._more_cases)
                # A large folder is not looked through all the time.
                self._next_look = time.monotonic() + max(SCAN_EVERY, 20 * (time.monotonic() - began))
            return self._contents

    def runs(self) -> list[ViewedRun]:
        """All runs, by name."""
        return [self._opened(found) for found in self.contents.of_kind("run")]

    def run(self, name: str) -> ViewedRun:
        """The run of a name.

        Raises:
            InputError: if there is none.
        """
        return self._opened(self.contents.named("run", name))

    def _opened(self, found: ViewedFolder) -> ViewedRun:
        with self._lock:
            known = self._runs.get(found.path)
            if known is None or known.is_replaced:
                known = self._runs[found.path] = ViewedRun(found.name, found.path, None)
            if known.cases is None:
                with suppress(InputError):  # the run's own line says what is wrong with its manifest
                    known.cases = self.cases(known.manifest.cases_sha256)
                if known.cases is not None:
                    known.rows.forget()  # it was indexed without targets
            return known

    def cases(self, sha256: str) -> CaseLines | None:
        """The cases of a hash; None if their file was not found."""
        with self._lock:
            for path in () if sha256 in self._cases else self.contents.cases.get(sha256, ()):
                version = path, stamp_of(path)
                if version in self._others:
                    continue
                with suppress(InputError, OSError):  # no cases file, or gone since the last look
                    lines = CaseLines(path)
                    if lines.sha256 == sha256:
                        self._cases[sha256] = lines
                        break
                self._others.add(version)  # changed after they were drawn, or a stranger's under our header
            return self._cases.get(sha256)

    def group(self, run: str) -> str:
        """The study, comparison or compile that a run belongs to; empty if none."""
        groups = [one for one in self.contents.found if one.kind in ("study", "comparison", "compile")]
        above = [one.name for one in groups if run.startswith(f"{one.name}/") or one.name == "."]
        return max(above, key=len, default="")

    def compile_named(self, name: str) -> ViewedCompile:
        """The compile of a name.

        Raises:
            InputError: if there is none.
        """
        found = self.contents.named("compile", name)
        return ViewedCompile(found.name, found.path)

    def artifacts(self) -> dict[str, ViewedFolder]:
        """Finished artifacts by hash; damaged ones are left out."""
        found = {}
        for one in self.contents.found:
            if one.kind in ("artifact", "compile") and is_artifact(one.path):
                try:
                    found[read_manifest(one.path).sha256] = one
                except InputError:
                    continue
        return found
