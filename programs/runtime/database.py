"""SQLite files of this project: opened one way, with errors a person can act on."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from programs.runtime.errors import InputError


def open_database(path: Path | str, table: str) -> sqlite3.Connection:
    """Open (or make, with its folder) a database for use by many threads and processes, in autocommit mode.

    Args:
        path: The file, or `:memory:`.
        table: The statement that makes its table if there is none.

    Raises:
        InputError: if the file is no database or cannot be written.
    """
    try:
        if str(path) != ":memory:":
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(path, check_same_thread=False, timeout=60, isolation_level=None)
        database.execute("PRAGMA journal_mode=WAL")
        # The log goes to the disk now and then, not with every answer, which takes 6 ms: `kill -9` loses nothing, a
        # power cut the last answers.
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(table)
    except (sqlite3.Error, OSError) as error:
        raise InputError(f"{path}: cannot be used as a store ({error}); delete it or set MLLM3REC_CACHE") from None
    return database
