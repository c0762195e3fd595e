"""Atomic file writes: temporary file in the same folder, fsync, rename."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from programs.runtime.errors import InputError

_SUFFIX = ".partial"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of `path` completely, or leave it unchanged; makes the folder if it is missing."""
    with replacing(path) as file:
        file.write(content)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file, written inside the block, that replaces `path` after it; an error leaves `path` unchanged."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):  # a full disk does not say which file it could not hold
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise


def own_folder(folder: Path) -> Path:
    """A folder that we make inside one of results, before files are written to it.

    Raises:
        InputError: if it is a symbolic link. In a folder of a stranger it may lead to files that are none of ours.
    """
    if folder.is_symlink():
        raise InputError(f"{folder}: is a symbolic link, and nothing is written through one; remove it")
    return folder


def sweep(directory: Path) -> None:
    """Remove temporary files left by killed processes; only for a directory that no other process writes to."""
    for temporary in directory.rglob(f".*{_SUFFIX}"):
        temporary.unlink(missing_ok=True)
