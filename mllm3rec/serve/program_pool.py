"""Pool of programs: the one that answers, and older ones until their last request has ended."""

from __future__ import annotations

import asyncio
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from evaluate.runs.directory import MANIFEST
from mllm3rec.serve.served_program import Build, ServedProgram
from optimize.artifact import SEARCH_FOLDER
from programs.runtime.errors import InputError, one_line
from programs.runtime.untrusted import MAX_BYTES

_log = logging.getLogger("mllm3rec.serve")

LOOK = 2.0
"""Seconds between two looks at the artifact's files."""

_TRIES = 5


class _FileState(NamedTuple):
    name: str
    inode: int
    size: int
    modified: int
    changed: int


Fingerprint = tuple[_FileState, ...]
"""Of the files of an artifact."""


class ProgramPool:
    """Holds the program that answers, and replaces it without dropping a request.

    Everything but `build` happens on one event loop.

    Args:
        build: Builds and checks the program from its files; called in a thread.
        current: The first one.
        told: Called after each reload with whether it succeeded.

    Attributes:
        current: The program that answers.
        since: Unix seconds when it began to.
        error: Why a newer one is not taken, in a word or two; None if there is none.
    """

    def __init__(self, build: Build, current: ServedProgram, told: Callable[[bool], None] = lambda taken: None) -> None:
        self._build = build
        self._told = told
        self.current = current
        self.since = time.time()
        self.error: str | None = None
        self._uses: dict[ServedProgram, int] = {}
        self._reloading = asyncio.Lock()

    @contextmanager
    def using(self) -> Iterator[ServedProgram]:
        """The current program, which stays usable inside the block."""
        program = self.current
        release = self.hold(program)
        try:
            yield program
        finally:
            release()

    def hold(self, program: ServedProgram) -> Callable[[], None]:
        """Keep a program usable until the returned function is called."""
        self._uses[program] = self._uses.get(program, 0) + 1

        def release() -> None:
            self._uses[program] -= 1
            self._retire(program)

        return release

    async def reload(self) -> bool:
        """Build the program anew and let it answer from now on; False if its artifact is the same.

        Raises:
            InputError: if the new one cannot be used; the old one stays.
        """
        async with self._reloading:
            try:
                new = await asyncio.to_thread(self._build)
            except Exception as error:  # whatever is wrong with the new one, the old one answers
                known = isinstance(error, InputError | OSError)
                # Everybody may read it, so it names no path of this machine; the log does.
                self.error = "not usable" if known else "a fault"
                self._told(False)
                said = one_line(error) if known else type(error).__name__
                _log.error("the new artifact is not taken, the old one goes on answering: %s", said)
                raise InputError(f"not taken, the old artifact goes on answering: {said}") from error
            old, self.error = self.current, None
            if new.artifact is not None and new.artifact == old.artifact:
                await new.close()
                return False
            self.current, self.since = new, time.time()
            self._told(True)
            _log.warning("now answering: %s, artifact %s", new.name, new.artifact)
            self._retire(old)
            return True

    async def watch(self, folder: Path, seen: Fingerprint | None) -> None:
        """Reload when the artifact in a folder is no longer the one that was seen; runs until it is cancelled.

        While its files change from look to look, a copy is under way.
        """
        failed, before = 0, seen
        while True:
            await asyncio.sleep(LOOK)
            now = await asyncio.to_thread(artifact_fingerprint, folder)
            if now != before:
                before, failed = now, 0
                continue
            if now is None or now == seen:
                continue
            try:
                await self.reload()
            except InputError:  # said in `reload`
                # What stays wrong is tried again when any of its files has changed.
                failed += 1
                if failed < _TRIES:
                    continue
            seen, failed = now, 0

    def _retire(self, program: ServedProgram) -> None:
        if program is not self.current and not self._uses.get(program):
            self._uses.pop(program, None)
            task = asyncio.get_running_loop().create_task(program.close())
            task.add_done_callback(lambda done: done.exception())


def artifact_fingerprint(folder: Path) -> Fingerprint | None:
    """What changes when a file of an artifact does, without reading any; None without a manifest.

    A pipe, a link and a manifest that is too large count as none, as for `read_manifest`. Files of the search are left
    out: they are not read, and a compile writes them all the time.
    """
    try:
        manifest = (folder / MANIFEST).lstat()
        if not stat.S_ISREG(manifest.st_mode) or manifest.st_size > MAX_BYTES:
            return None
        return tuple(sorted(_states(folder)))
    except OSError:  # a file has gone meanwhile: at the next look it is known to be
        return None


def _states(folder: Path) -> Iterator[_FileState]:
    for root, folders, files in os.walk(folder):
        inside = Path(root)
        folders[:] = [name for name in folders if inside != folder or name != SEARCH_FOLDER]
        for name in (*folders, *files):
            found = (inside / name).lstat()
            if not stat.S_ISDIR(found.st_mode):
                where = (inside / name).relative_to(folder).as_posix()
                yield _FileState(where, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
