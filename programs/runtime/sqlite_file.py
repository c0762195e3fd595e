"""SQLite files that threads and processes share: private to the user, with a write-ahead log."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random


def open_database(path: Path | str, patience: float) -> sqlite3.Connection:
    """A connection that any thread may use, in autocommit mode; others can read while one writes.

    Args:
        path: The file, made with its folder if it is missing; `:memory:` for no file.
        patience: Seconds to wait while another process has it locked.

    Raises:
        OSError: if it cannot be made, or is a symbolic link.
        sqlite3.Error: if it is locked for longer, damaged, or another kind of file.
    """
    if path != ":memory:":
        make_private(Path(path))
    database = sqlite3.connect(path, check_same_thread=False, timeout=patience, isolation_level=None)
    # SQLite waits for a lock, but not when two connections switch a new file to the log: one of them fails at once.
    for attempt in Retrying(
        retry=retry_if_exception(_is_locked),
        stop=stop_after_delay(patience),
        wait=wait_random(0.005, 0.05),
        reraise=True,
    ):
        with attempt:
            database.execute("PRAGMA journal_mode=WAL")
    return database


def make_private(path: Path) -> None:
    """Make an empty file that only the user can read, and its folder, if it is missing.

    Raises:
        OSError: if it is a symbolic link.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        # Not opened to find out: closing it would release the locks of another store of this process.
        if path.is_symlink():
            raise OSError("it is a symbolic link") from None


def _is_locked(error: BaseException) -> bool:
    return getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY")
