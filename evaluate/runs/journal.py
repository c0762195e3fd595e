"""Journal of a run: one JSON line with a checksum per ranked user; a killed run resumes from it.

A run directory holds `manifest.json` (what was run), `journal.jsonl` (the rows) and `.lock`. A line is

    {"sha256":"<first 16 hex digits of the row's hash>","row":<Ranking>}

Every row is passed to the operating system before `append` returns, so killing the process (`kill -9`) loses at most
the row being written. `fsync` follows at most every 0.5 s and on closing, so a power cut can also lose rows appended
since the last one. Lost rows are ranked again on resume; their answers are in the response cache.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from filelock import BaseFileLock
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, JsonValue, ValidationError

from evaluate.runs.directory import JOURNAL, MANIFEST, RunDirectory
from programs.runtime.appending import open_to_append
from programs.runtime.atomic import write_atomically
from programs.runtime.errors import InputError, input_error
from programs.runtime.lock import take
from programs.runtime.untrusted import read_regular, regular
from signatures.rows import Ranking

FSYNC_SECONDS = 0.5

_HEAD, _MIDDLE, _TAIL = b'{"sha256":"', b'","row":', b"}\n"
_DIGITS = 16


class RunManifest(BaseModel):
    """Identity of a run: a run resumes only if cases, data, ranker and configuration are the same.

    Attributes:
        cases_sha256: Hash of the frozen cases (`Cases.sha256`).
        dataset_sha256: Hash of the data that the cases were drawn from (`Dataset.sha256`). Empty in runs of older
            versions, which go on without this check.
        configuration: Everything else that decides a ranking, as JSON with finite numbers.
        created: When the run was first opened.
        versions: Package versions at that time; recorded, not compared.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["mllm3rec-run/1"] = "mllm3rec-run/1"
    cases_sha256: str
    dataset_sha256: str = Field(default="", exclude_if=lambda sha256: not sha256)
    ranker: str
    configuration: dict[str, JsonValue] = Field(default_factory=dict)
    created: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    versions: dict[str, str] = Field(default_factory=dict)


class Journal:
    """An open, locked run directory. A context manager; threads may append at the same time.

    Attributes:
        directory: The run directory.
        manifest: The manifest on disk, from the first session.
    """

    def __init__(self, directory: Path, manifest: RunManifest, lock: BaseFileLock) -> None:
        """Internal: use `Journal.open`, which takes the lock and checks the manifest first."""
        self.directory = directory
        self.manifest = manifest
        self._path = RunDirectory(directory).journal
        self._lock = lock
        self._file = open_to_append(self._path)
        self._writing = threading.Lock()
        self._closed = False
        self._synced = time.monotonic()
        try:
            self._end = max((end for _, end, _ in _records(self._path)), default=0)
            os.ftruncate(self._file, self._end)
            _fsync_directory(directory)
        except BaseException:
            os.close(self._file)
            raise

    @classmethod
    def open(cls, directory: Path, manifest: RunManifest) -> Self:
        """Start a run, or resume the one in `directory`; a row that a crash cut off at the end is dropped.

        Raises:
            InputError: if another process has the run open, or the directory cannot be used, holds a run of other
                cases, data, ranker or configuration (naming the differences), has a damaged row, or its journal is a
                symbolic link.
        """
        lock = take(directory)
        try:
            return cls(directory, _agreed(directory, manifest), lock)
        except BaseException:
            lock.release()
            raise

    def append(self, ranking: Ranking) -> None:
        """Add one row; when this returns, it survives the end of the process.

        Raises:
            OSError: if it could not be written (disk full); the journal stays as it was.
            ValueError: if the journal is closed.
        """
        line = _line(ranking)
        with self._writing:
            if self._closed:
                raise ValueError(f"{self._path}: the journal is closed")
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file, line[written:])
                if time.monotonic() - self._synced >= FSYNC_SECONDS:
                    self._sync()
            except OSError as error:
                # A half-written row before other rows would count as damage.
                os.ftruncate(self._file, self._end)
                raise OSError(error.errno, error.strerror, str(self._path)) from error
            self._end += len(line)

    def rows(self) -> dict[str, Ranking]:
        """The latest row of every user, in the order of the users' first rows.

        Raises:
            InputError: naming file and line, if a row is damaged.
        """
        with self._writing:
            return _rows(self._path)

    def resolved(self) -> frozenset[str]:
        """Users whose latest row is not `failed`; all others have to be ranked."""
        return frozenset(user for user, row in self.rows().items() if row.scored)

    def close(self) -> None:
        """Sync all rows to disk and release the directory. Closing twice does nothing."""
        with self._writing:
            if self._closed:
                return
            self._closed = True
            try:
                self._sync()
            finally:
                os.close(self._file)
                self._lock.release()

    def _sync(self) -> None:
        os.fsync(self._file)
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_journal(directory: Path) -> tuple[RunManifest, dict[str, Ranking]]:
    """Read a run, finished or not, without locking or changing it.

    Returns:
        The manifest and the latest row of every user.

    Raises:
        InputError: if there is no run, or manifest or rows are damaged.
    """
    manifest = stored_manifest(directory)
    if manifest is None:
        raise InputError(f"{directory}: not a run directory, {MANIFEST} is missing")
    path = RunDirectory(directory).journal
    return manifest, _rows(path) if path.exists() else {}


def _agreed(directory: Path, manifest: RunManifest) -> RunManifest:
    try:
        stored = refuse_other_run(directory, manifest)
    except InputError:
        # A first try with a mistyped model: nothing was ranked, so nothing is lost by starting anew.
        journal = RunDirectory(directory).journal
        if not journal.exists() or any(row.scored for row in _rows(journal).values()):
            raise
        journal.unlink()
        stored = None
    if stored is not None:
        return stored
    if RunDirectory(directory).journal.exists():
        raise InputError(f"{directory}: {JOURNAL} without {MANIFEST}: not a run; choose another directory")
    write_atomically(RunDirectory(directory).manifest, manifest.model_dump_json(indent=2).encode() + b"\n")
    return manifest


def refuse_other_run(directory: Path, manifest: RunManifest) -> RunManifest | None:
    """Check that a directory holds the run of a manifest, or no run; neither locks nor changes it.

    Returns:
        The stored manifest, or None.

    Raises:
        InputError: naming the differences.
    """
    stored = stored_manifest(directory)
    if stored is None:
        return None
    # Through JSON, so that both are compared in the stored form.
    manifest = RunManifest.model_validate_json(manifest.model_dump_json())
    if stored.cases_sha256 != manifest.cases_sha256:
        raise InputError(
            f"{directory}: holds another run: on cases with sha256 {stored.cases_sha256[:12]}, and these have "
            f"{manifest.cases_sha256[:12]}. Choose another directory, or give the cases file of this run"
        )
    # Equal lists can come from other data, whose counts and texts rank them otherwise.
    of_data = ("dataset_sha256",) if stored.dataset_sha256 and manifest.dataset_sha256 else ()
    differences = [
        line
        for field in (*of_data, "ranker", "configuration")
        for line in _differences(field, getattr(stored, field), getattr(manifest, field))
    ]
    if differences:
        raise InputError(
            f"{directory}: holds another run: {'; '.join(differences)}. "
            "Choose another directory, or give the options of this run"
        )
    return stored


_NOT_COMPARED = {"timeout", "fitted_with"}
"""Recorded, but a run may go on with another one: a timeout decides no ranking, and a finished run stays finished when
the same fit would be made on other hardware or with more stored traits."""

_RECORDED_LATER = {"hardware", "fit_versions", "leanings_schema"}
"""Runs of older versions lack it."""


def _differences(name: str, stored: JsonValue, given: JsonValue) -> Iterator[str]:
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in sorted((stored.keys() | given.keys()) - _NOT_COMPARED - (_RECORDED_LATER - stored.keys())):
            if key not in given or key not in stored:
                yield f"{name}.{key} is only {'in the run' if key in stored else 'given'}"
            else:
                yield from _differences(f"{name}.{key}", stored[key], given[key])
    elif stored != given:
        yield f"{name} is {json.dumps(stored):.80}, given {json.dumps(given):.80}"


def stored_manifest(directory: Path) -> RunManifest | None:
    """The manifest of the run in a directory; None if there is no run yet.

    Raises:
        InputError: if it cannot be read.
    """
    path = RunDirectory(directory).manifest
    try:
        return RunManifest.model_validate_json(read_regular(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise input_error(f"{path}: not the manifest of a run", error) from None


def _line(ranking: Ranking) -> bytes:
    body = ranking.model_dump_json(exclude_defaults=True).encode()
    return _HEAD + _checksum(body) + _MIDDLE + body + _TAIL


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(body).hexdigest()[:_DIGITS].encode()


def row_in(line: bytes) -> bytes | None:
    """The row in a journal's line, as JSON, or None if the line is incomplete or damaged."""
    body = line[len(_HEAD) + _DIGITS + len(_MIDDLE) : -len(_TAIL)]
    return body if line == _HEAD + _checksum(body) + _MIDDLE + body + _TAIL else None


def _records(path: Path) -> Iterator[tuple[int, int, bytes]]:
    """Line number, byte offset of its end, and row of every valid record; a damaged last record is skipped."""
    end, damaged = 0, None
    with regular(path).open("rb") as file:
        for number, line in enumerate(file, start=1):
            if damaged is not None:
                raise InputError(
                    f"{path}:{damaged}: the row was damaged (its checksum differs); "
                    "delete that line to have its user ranked again"
                )
            if not line.endswith(b"\n"):
                return  # Cut off, or being written right now by another process.
            body = row_in(line)
            if body is None:
                damaged = number
                continue
            end += len(line)
            yield number, end, body


def _rows(path: Path) -> dict[str, Ranking]:
    latest: dict[str, Ranking] = {}
    for number, _, body in _records(path):
        try:
            row = Ranking.model_validate_json(body)
        except ValidationError as error:
            raise input_error(f"{path}:{number}: not a ranking", error) from None
        latest[row.user_id] = row
    return latest


def _fsync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
