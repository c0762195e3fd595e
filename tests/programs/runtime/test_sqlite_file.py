"""SQLite files that many open at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from programs.runtime.sqlite_file import open_database

TOGETHER, FILES = 8, 200


def test_all_who_open_a_new_file_at_the_same_moment_can_use_it(tmp_path: Path) -> None:
    # With a single attempt, one file in ten failed with "database is locked", however long the patience.
    together = threading.Barrier(TOGETHER)

    def open_at_once(path: Path) -> str:
        together.wait()
        with closing(open_database(path, 30)) as database:
            return str(database.execute("PRAGMA journal_mode").fetchone()[0])

    with ThreadPoolExecutor(TOGETHER) as pool:
        for number in range(FILES):
            assert set(pool.map(open_at_once, [tmp_path / f"{number}.sqlite"] * TOGETHER)) == {"wal"}


def test_one_writes_while_others_read(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with closing(open_database(path, 1)) as writer, closing(open_database(path, 0.1)) as reader:
        writer.execute("CREATE TABLE t (x)")
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO t VALUES (1)")
        assert reader.execute("SELECT COUNT(*) FROM t").fetchone() == (0,)
