"""Key-value store: one table of an SQLite file, shared by threads and processes."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from programs.runtime.errors import InputError, abridged
from programs.runtime.events import Note, OnEvent, ignore
from programs.runtime.nocopy import SharedByCopies
from programs.runtime.sqlite_file import open_database

Values = tuple[Any, ...]

_PATIENCE, _PATIENCE_AFTERWARDS = 60.0, 1.0
"""Seconds to wait for a file that another process has locked, and once a wait was in vain."""


class KeyValueStore(SharedByCopies):
    """Rows of values by key. Deep copies are the same store.

    Safe against `kill -9`; a power cut may lose the last entries but damages nothing. Only the owner can read the file,
    and it is never a symbolic link.

    What it holds can be made again, so a file that fails later ends nothing: an entry that cannot be read counts as
    missing, and entries that cannot be written are kept in memory and written with the next ones, if that is possible.

    Args:
        path: The file, made with its folder if it is missing; `:memory:` for no file.
        table: Name of the table.
        key: SQL types of the key columns, by name.
        value: SQL types of the value columns. A column that an older file lacks is added if it may be NULL.
        on_event: Told once if the file cannot be read, and once if it cannot be written; in the thread that noticed.

    Raises:
        InputError: if the file cannot be opened: it is another kind of file, damaged, locked or not writable.
    """

    def __init__(
        self,
        path: Path | str,
        table: str,
        key: Mapping[str, str],
        value: Mapping[str, str],
        on_event: OnEvent = ignore,
    ) -> None:
        self.path = path
        self.on_event = on_event
        self._table = table
        columns, marks = ", ".join([*key, *value]), ", ".join("?" * (len(key) + len(value)))
        self._get = f"SELECT {', '.join(value)} FROM {table} WHERE {_all_equal(key)}"  # noqa: S608 - names of columns
        self._put = f"INSERT OR REPLACE INTO {table} ({columns}) VALUES ({marks})"  # noqa: S608
        self._lock = threading.Lock()
        self._unwritten: dict[Values, Values] = {}
        self._told: set[str] = set()
        with self._errors():
            self._database = open_database(path, _PATIENCE)
            # The log is synced to disk from time to time, not with every entry, which takes 6 ms.
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._make_table(key, value)

    def get(self, *key: object) -> Values | None:
        """The values of a key, or None."""
        with self._lock:
            if key in self._unwritten:
                return self._unwritten[key]
            try:
                values: Values | None = self._database.execute(self._get, key).fetchone()
                return values
            except sqlite3.ProgrammingError:
                raise  # A mistake of the caller, not of the file.
            except sqlite3.Error as error:
                self._tell("read", error, "what it held is made again")
                return None

    def put(self, key: Values, value: Values) -> None:
        """Store one entry; the later of two equal keys wins."""
        self.put_many({key: value})

    def put_many(self, entries: Mapping[Values, Values]) -> None:
        """Store all of the entries or, if they do not fit the table, none."""
        with self._lock:
            waiting = self._unwritten | dict(entries)
            try:
                self._write(waiting)
                waiting = {}
            except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
                raise  # A mistake of the caller, not of the file.
            except sqlite3.Error as error:
                self._tell("written", error, "what is new is kept in memory until it can be")
                self._database.execute(f"PRAGMA busy_timeout={_PATIENCE_AFTERWARDS * 1000:.0f}")
            self._unwritten = waiting

    def put_durably(self, entries: Mapping[Values, Values]) -> None:
        """Store all of the entries; they are on disk when this returns, and a power cut does not lose them.

        Raises:
            InputError: if they cannot be written; none of them is stored then.
        """
        with self._lock, self._errors():
            self._database.execute("PRAGMA synchronous=FULL")
            try:
                self._write(self._unwritten | dict(entries))
                self._unwritten = {}
            finally:
                self._database.execute("PRAGMA synchronous=NORMAL")

    def count(self, **key: object) -> int:
        """Number of entries, or of those with these values in the key."""
        query = f"SELECT COUNT(*) FROM {self._table}" + (f" WHERE {_all_equal(key)}" if key else "")  # noqa: S608
        with self._errors(), self._lock:
            (count,) = self._database.execute(query, list(key.values())).fetchone()
        return int(count)

    def close(self) -> None:
        """Write what could not be written before, and close the file; the store cannot be used afterwards."""
        if self._unwritten:
            self.put_many({})
        if self._unwritten:
            lost, self._unwritten = len(self._unwritten), {}
            self.on_event(Note(f"warning: {self.path}: {lost} new entries could not be written, and are lost"))
        self._database.close()

    def _write(self, entries: Mapping[Values, Values]) -> None:
        with self._transaction():
            self._database.executemany(self._put, [key + value for key, value in entries.items()])

    def _make_table(self, key: Mapping[str, str], value: Mapping[str, str]) -> None:
        # A file that has all it needs is not written to: another process may have it locked.
        if {*key, *value} <= self._existing():
            return
        columns = ", ".join(f"{name} {kind}" for name, kind in {**key, **value}.items())
        with self._transaction():
            self._database.execute(
                f"CREATE TABLE IF NOT EXISTS {self._table} ({columns}, PRIMARY KEY ({', '.join(key)}))"
            )
            existing = self._existing()
            for name in value:
                if name not in existing and "NOT NULL" not in value[name]:
                    self._database.execute(f"ALTER TABLE {self._table} ADD COLUMN {name} {value[name]}")
                    existing.add(name)
        if missing := [name for name in (*key, *value) if name not in existing]:
            raise sqlite3.DatabaseError(f"its table {self._table!r} has no column {missing[0]!r}")

    def _existing(self) -> set[str]:
        return {row[1] for row in self._database.execute(f"PRAGMA table_info({self._table})")}

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("BEGIN IMMEDIATE")
        # Commits at the end of the block, or rolls back.
        with self._database:
            yield

    def _tell(self, done: str, error: sqlite3.Error, consequence: str) -> None:
        if done not in self._told:
            self._told.add(done)
            problem = f"{self.path}: cannot be {done} ({abridged(str(error))}): {consequence}"
            self.on_event(Note(f"warning: {problem}; {_remedy(error)}"))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
            raise  # A mistake of the caller, not of the file.
        except (sqlite3.Error, OSError) as error:
            raise InputError(f"{self.path}: cannot be used as a store ({error}); {_remedy(error)}") from error


def _remedy(error: Exception) -> str:
    kind = getattr(error, "sqlite_errorname", "")
    if kind.startswith("SQLITE_BUSY"):
        return f"another process has used it for {_PATIENCE:.0f} s, wait until that ends"
    if kind == "SQLITE_FULL":
        return "make room on the disk"
    return "delete it or set MLLM3REC_CACHE to another folder"


def _all_equal(columns: Iterable[str]) -> str:
    return " AND ".join(f"{name} = ?" for name in columns)
