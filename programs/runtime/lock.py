"""One process at a time in a directory, let go of by the operating system when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from programs.runtime.errors import InputError

LOCK = ".lock"


def take(directory: Path) -> int:
    """Make the directory if need be and own it until the returned file descriptor is closed.

    Raises:
        InputError: if another process owns it, naming that process, or it cannot be used.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(f"{directory}: cannot hold a run: {error.strerror}; choose another directory") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise InputError(
            f"{directory}: this run is open in another process (process id {holder}); "
            "wait until it ends, or choose another directory"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


@contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Own the directory inside the block; see `take`."""
    lock = take(directory)
    try:
        yield
    finally:
        os.close(lock)
