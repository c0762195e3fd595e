"""Key-value store: one table of an SQLite file, shared by threads and processes."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from programs.runtime.errors import InputError

Values = tuple[Any, ...]

_PATIENCE = 60.0
"""Seconds to wait for a file that another process has locked."""


class KeyValueStore:
    """Rows of values by key. Deep copies are the same store.

    Safe against `kill -9`; a power cut may lose the last entries but damages nothing. Only the owner can read the file,
    and it is never a symbolic link.

    Args:
        path: The file, made with its folder if it is missing; `:memory:` for no file.
        table: Name of the table.
        key: SQL types of the key columns, by name.
        value: SQL types of the value columns. A column that an older file lacks is added if it may be NULL.

    Raises:
        InputError: here and from every method, if the file is another kind of file, damaged, locked or not writable.
    """

    def __init__(self, path: Path | str, table: str, key: Mapping[str, str], value: Mapping[str, str]) -> None:
        self.path = path
        self._table = table
        columns, marks = ", ".join([*key, *value]), ", ".join("?" * (len(key) + len(value)))
        self._get = f"SELECT {', '.join(value)} FROM {table} WHERE {_all_equal(key)}"  # noqa: S608 - names of columns
        self._put = f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608
        self._lock = threading.Lock()
        with self._errors():
            if path != ":memory:":
                _make_private(Path(path))
            self._database = sqlite3.connect(path, check_same_thread=False, timeout=_PATIENCE, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            # The log is synced to disk from time to time, not with every entry, which takes 6 ms.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._make_table(key, value)

    def __deepcopy__(self, memo: dict[int, object]) -> KeyValueStore:
        return self

    def get(self, *key: object) -> Values | None:
        """The values of a key, or None."""
        with self._errors(), self._lock:
            values: Values | None = self._database.execute(self._get, key).fetchone()
        return values

    def put(self, key: Values, value: Values) -> None:
        """Store one entry; the later of two equal keys wins."""
        self.put_many({key: value})

    def put_many(self, entries: Mapping[Values, Values]) -> None:
        """Store all of the entries or, if it fails, none."""
        with self._errors(), self._transaction():
            self._database.executemany(self._put, [key + value for key, value in entries.items()])

    def count(self, **key: object) -> int:
        """Number of entries, or of those with these values in the key."""
        query = f"SELECT COUNT(*) FROM {self._table}" + (f" WHERE {_all_equal(key)}" if key else "")  # noqa: S608
        with self._errors(), self._lock:
            (count,) = self._database.execute(query, list(key.values())).fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file; the store cannot be used afterwards."""
        self._database.close()

    def _make_table(self, key: Mapping[str, str], value: Mapping[str, str]) -> None:
        columns = ", ".join(f"{name} {kind}" for name, kind in {**key, **value}.items())
        with self._transaction():
            self._database.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} ({columns}, PRIMARY KEY ({', '.join(key)}))"
            )
            existing = {row[1] for row in self._database.execute(f"PRAGMA table_info({self._table})")}
            for name in value:
                if name not in existing and "NOT NULL" not in value[name]:
                    self._database.execute(f"ALTER TABLE {self._table} ADD COLUMN {name} {value[name]}")
                    existing.add(name)
        if missing := [name for name in (*key, *value) if name not in existing]:
            raise sqlite3.DatabaseError(f"its table {self._table!r} has no column {missing[0]!r}")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            # Commits at the end of the block, or rolls back.
            with self._database:
                yield

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise  # A mistake of the caller, not of the file.
        except (sqlite3.Error, OSError) as error:
            remedy = "delete it or set MLLM3REC_CACHE to another folder"
            if getattr(error, "sqlite_errorname", "").startswith("SQLITE_BUSY"):
                remedy = f"another process has used it for {_PATIENCE:.0f} s, wait until that ends"
            raise InputError(f"{self.path}: cannot be used as a store ({error}); {remedy}") from error


def _make_private(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        # Not opened to find out: closing it would release the locks of another store of this process.
        if path.is_symlink():
            raise OSError("it is a symbolic link") from None


def _all_equal(columns: Iterable[str]) -> str:
    return " AND ".join(f"{name} = ?" for name in columns)
