"""The key-value store on SQLite: old files, many threads, many processes, damaged and locked files."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from programs.lm.response_cache import ResponseCache
from programs.prior.embedding_store import EmbeddingStore
from programs.prior.encoders import Vectors
from programs.runtime import key_value_store
from programs.runtime.errors import InputError
from programs.runtime.key_value_store import KeyValueStore
from programs.trait_store import Distilled, TraitStore
from signatures.rows import Usage


def pairs(path: Path | str) -> KeyValueStore:
    return KeyValueStore(path, "pairs", key={"a": "TEXT", "b": "BLOB"}, value={"x": "TEXT NOT NULL", "y": "INTEGER"})


class NoEncoder:
    """One that must not be asked."""

    name = "known"

    def encode(self, texts: Sequence[str]) -> Vectors:
        raise AssertionError(texts)


def made_before(path: Path, *statements: tuple[str, tuple[Any, ...]]) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        for statement, values in statements:
            database.execute(statement, values)


class TestFilesOfEarlierVersions:
    def test_a_response_cache_still_answers(self, tmp_path: Path) -> None:
        path = tmp_path / "calls.sqlite"
        request = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
        key = ResponseCache(":memory:").cache_key(request)
        made_before(
            path,
            ("PRAGMA journal_mode=WAL", ()),
            ("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)", ()),
            ("INSERT INTO answers VALUES (?, ?)", (key, json.dumps({"text": "hi", "_seconds": 0.5}))),
        )
        cache = ResponseCache(path)
        assert cache.get(request) == {"text": "hi"}
        assert cache.this_call.seconds == 0.5
        cache.close()

    @pytest.mark.parametrize("usage", [True, False], ids=["with usage", "from before usage was kept"])
    def test_a_trait_store_still_has_its_traits(self, tmp_path: Path, usage: bool) -> None:
        path = tmp_path / "traits.sqlite"
        said = Usage(calls=1, usd=0.5)
        made_before(
            path,
            (f"CREATE TABLE phrases (key TEXT PRIMARY KEY, phrases TEXT NOT NULL{', usage TEXT' * usage})", ()),
            ("INSERT INTO phrases (key, phrases) VALUES (?, ?)", ("k", '["light"]')),
            ("UPDATE phrases SET usage = ?" if usage else "SELECT ?", (said.model_dump_json(),)),
        )
        store = TraitStore(path)
        assert store.get("k") == Distilled(("light",), said if usage else None)
        store.put("new", ["sturdy"], said)
        assert TraitStore(path).get("new") == Distilled(("sturdy",), said)
        assert len(store) == 2

    def test_an_embedding_store_still_has_its_vectors(self, tmp_path: Path) -> None:
        path = tmp_path / "embeddings.sqlite"
        vector = np.array([0.6, 0.8], dtype="<f4")
        key = hashlib.sha256(b"a cup").digest()
        made_before(
            path,
            (
                "CREATE TABLE IF NOT EXISTS vectors (encoder TEXT NOT NULL, sha256 BLOB NOT NULL, "
                "vector BLOB NOT NULL, PRIMARY KEY (encoder, sha256))",
                (),
            ),
            ("INSERT INTO vectors VALUES (?, ?, ?)", ("known", key, vector.tobytes())),
            ("INSERT INTO vectors VALUES (?, ?, ?)", ("other", key, vector.tobytes())),
        )
        store = EmbeddingStore(path, NoEncoder())
        np.testing.assert_array_equal(store.encode(["a cup"]), [vector])
        assert len(store) == 1


def test_entries_by_composite_key() -> None:
    store = pairs(":memory:")
    assert store.get("k", b"1") is None
    store.put(("k", b"1"), ("one", 1))
    store.put_many({("k", b"2"): ("two", None), ("l", b"1"): ("three", 3)})
    store.put(("k", b"1"), ("uno", 1))
    assert (store.get("k", b"1"), store.get("k", b"2"), store.get("l", b"2")) == (("uno", 1), ("two", None), None)
    assert (store.count(), store.count(a="k"), store.count(a="k", b=b"2")) == (3, 2, 1)
    assert deepcopy(store) is store


def test_entries_are_written_all_or_none(tmp_path: Path) -> None:
    store = pairs(tmp_path / "s.sqlite")
    with pytest.raises(sqlite3.IntegrityError):
        store.put_many({("k", b"1"): ("one", 1), ("k", b"2"): (None, 2)})
    assert store.count() == 0
    store.put(("k", b"1"), ("one", 1))
    assert store.count() == 1


def test_many_threads_share_a_store(tmp_path: Path) -> None:
    store = pairs(tmp_path / "s.sqlite")
    failed: list[BaseException] = []

    def work(thread: int) -> None:
        try:
            for n in range(40):
                store.put((str(thread), bytes([n])), (str(n), n))
                assert store.get(str(thread), bytes([n])) == (str(n), n)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=[n]) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert store.count() == 320


WRITER = """
import sys
from pathlib import Path
from programs.runtime.key_value_store import KeyValueStore
store = KeyValueStore(Path(sys.argv[1]), "pairs", {"a": "TEXT", "b": "BLOB"}, {"x": "TEXT NOT NULL", "y": "INTEGER"})
for n in range(200):
    store.put((sys.argv[2], bytes([n])), (str(n), n))
    print(n, flush=True)
"""


def test_processes_share_a_file_and_one_that_is_killed_loses_nothing_it_wrote(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(path), name], stdout=subprocess.PIPE, text=True)  # noqa: S603
        for name in ("whole", "killed")
    ]
    assert running[1].stdout is not None
    written = int(next(line for line in running[1].stdout if int(line) >= 20))
    running[1].kill()
    rest, _ = running[1].communicate()
    written = max([written, *(int(line) for line in rest.split())])
    running[0].communicate()
    assert running[0].returncode == 0
    store = pairs(path)
    assert store.count(a="whole") == 200
    assert store.count(a="killed") >= written + 1


def test_a_file_is_its_owner_s_alone(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        pairs(tmp_path / "deep" / "s.sqlite").put(("k", b""), ("x", 1))
    finally:
        os.umask(before)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in (tmp_path / "deep").iterdir()}
    assert modes == dict.fromkeys(("s.sqlite", "s.sqlite-wal", "s.sqlite-shm"), "0o600")


@pytest.mark.parametrize("there", [True, False])
def test_a_symbolic_link_is_not_followed(tmp_path: Path, there: bool) -> None:
    target = tmp_path / "target"
    if there:
        target.write_bytes(b"")
    (tmp_path / "s.sqlite").symlink_to(target)
    with pytest.raises(InputError, match=r"s\.sqlite: .*symbolic link"):
        pairs(tmp_path / "s.sqlite")
    assert target.read_bytes() == b"" if there else not target.exists()


def damage_pages(path: Path) -> None:
    store = pairs(path)
    store.put_many({("k", n.to_bytes(2, "big")): ("x" * 200, n) for n in range(500)})
    store.close()
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def no_database(path: Path) -> None:
    path.write_bytes(b"something else entirely, and long enough to be looked at" * 20)


def another_table(path: Path) -> None:
    made_before(path, ("CREATE TABLE pairs (a TEXT, x TEXT)", ()))


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (damage_pages, "malformed"),
        (no_database, "file is not a database"),
        (another_table, "its table 'pairs' has no column 'b'"),
        (a_folder, "unable to open"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, spoil: Callable[[Path], None], said: str) -> None:
    path = tmp_path / "s.sqlite"
    spoil(path)
    with pytest.raises(InputError, match=rf"^{path}: cannot be used as a store \(.*{said}.*\); delete it or set"):
        pairs(path).get("k", b"\0\1")


def test_a_file_that_stays_locked_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_value_store, "_PATIENCE", 0.1)
    path = tmp_path / "s.sqlite"
    store = pairs(path)
    store.put(("k", b""), ("x", 1))
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert store.get("k", b"") == ("x", 1), "readers do not wait for writers"
        with pytest.raises(InputError, match=rf"^{path}: .*locked\); another process has used it"):
            store.put(("k", b""), ("y", 2))
    store.put(("k", b""), ("y", 2))
