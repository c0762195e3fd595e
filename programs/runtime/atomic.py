"""Atomic file writes: temporary file in the same folder, fsync, rename."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

_SUFFIX = ".partial"


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content`, or leave it as it was; its folder is made when missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_SUFFIX)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def sweep(directory: Path) -> None:
    """Remove the temporary files of processes that were killed, from a directory this process alone writes to."""
    for temporary in directory.rglob(f".*{_SUFFIX}"):
        temporary.unlink(missing_ok=True)
