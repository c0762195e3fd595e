"""Directory lock for one process at a time; the operating system releases it when the process ends in any way."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from programs.runtime.errors import InputError

LOCK = ".lock"


@contextmanager
def awaited(directory: Path, on_wait: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of the directory inside the block, after the process that holds it now; see `take`.

    Args:
        on_wait: Told the process id of the holder, if there is one.
    """
    lock = FileLock(
        directory / LOCK, mode=0o600, thread_local=False, preserve_lock_file=True, on_acquired=_write_process_id
    )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            on_wait(_holder(directory / LOCK))
            lock.acquire(timeout=-1)
    except OSError as error:
        raise InputError(f"{directory}: cannot be used: {error.strerror}; remove it, or make it writable") from None
    try:
        yield
    finally:
        lock.release()


def take(directory: Path) -> BaseFileLock:
    """Lock a directory; makes it, private to the user, if it is missing.

    Returns:
        The lock; it is held until `release`, and only while the object exists.

    Raises:
        InputError: if another process holds it (naming its id), or the directory cannot be used.
    """
    path = directory / LOCK
    lock = FileLock(
        path, timeout=0, mode=0o600, thread_local=False, preserve_lock_file=True, on_acquired=_write_process_id
    )
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise InputError(
            f"{directory}: this run is open in another process (process id {_holder(path)}); "
            "wait until it ends, or choose another directory"
        ) from None
    except OSError as error:
        problem = f"{LOCK} is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise InputError(f"{directory}: cannot be used for a run: {problem}; choose another directory") from None
    return lock


@contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Hold the lock of the directory inside the block; see `take`."""
    lock = take(directory)
    try:
        yield
    finally:
        lock.release()


def _write_process_id(lock: int) -> None:
    os.ftruncate(lock, 0)
    os.lseek(lock, 0, os.SEEK_SET)
    os.write(lock, f"{os.getpid()}\n".encode())


def _holder(path: Path) -> str:
    try:
        return path.read_text(errors="replace")[:32].strip() or "unknown"
    except OSError:  # Windows locks the file against reading, too.
        return "unknown"
