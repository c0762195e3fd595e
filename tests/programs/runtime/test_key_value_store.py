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
from programs.runtime.events import Event, Note, OnEvent, ignore
from programs.runtime.key_value_store import KeyValueStore
from programs.trait_store import Distilled, TraitStore
from signatures.rows import Usage
from tests.support.encoders import LetterEncoder
from tests.support.files import overwrite_pages
from tests.support.paths import ROOT


def pairs(path: Path | str, on_event: OnEvent = ignore) -> KeyValueStore:
    key, value = {"a": "TEXT", "b": "BLOB"}, {"x": "TEXT NOT NULL", "y": "INTEGER"}
    return KeyValueStore(path, "pairs", key, value, on_event)


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
            (
                "INSERT INTO answers VALUES (?, ?)",
                (key, json.dumps({"choices": [{"message": {"content": "hi"}}], "_seconds": 0.5})),
            ),
        )
        cache = ResponseCache(path)
        assert cache.get(request) == {"choices": [{"message": {"content": "hi"}}]}
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
    overwrite_pages(path)


def no_database(path: Path) -> None:
    path.write_bytes(b"something else entirely, and long enough to be looked at" * 20)


def another_table(path: Path) -> None:
    made_before(path, ("CREATE TABLE pairs (a TEXT, x TEXT)", ()))


def a_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
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


def test_a_file_that_stays_locked_loses_nothing_and_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_value_store, "_PATIENCE", 0.1)
    monkeypatch.setattr(key_value_store, "_PATIENCE_AFTERWARDS", 0.05)
    path = tmp_path / "s.sqlite"
    pairs(path).put(("k", b""), ("x", 1))
    told: list[Event] = []
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store = pairs(path, told.append)
        assert store.get("k", b"") == ("x", 1), "neither opening nor reading waits for writers"
        store.put(("k", b""), ("y", 2))
        store.put(("l", b""), ("z", 3))
        assert (store.get("k", b""), store.get("l", b"")) == (("y", 2), ("z", 3))
        (note,) = told
        assert isinstance(note, Note)
        assert note.text.startswith(f"warning: {path}: cannot be written (database is locked): ")
        assert "another process has used it" in note.text
        assert pairs(path).get("k", b"") == ("x", 1)
    store.put(("m", b""), ("w", 4))
    other_view = pairs(path)
    assert [other_view.get(key, b"") for key in "klm"] == [("y", 2), ("z", 3), ("w", 4)]


def test_an_entry_that_cannot_be_read_is_missing_and_the_file_is_named_once(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    damage_pages(path)
    told: list[Event] = []
    store = pairs(path, told.append)
    assert [store.get("k", n.to_bytes(2, "big")) for n in (1, 2, 3)] == [None] * 3
    (note,) = told
    assert isinstance(note, Note)
    assert note.text.startswith(f"warning: {path}: cannot be read (")
    assert "malformed" in note.text and "delete it or set MLLM3REC_CACHE" in note.text


FULL = """
import resource, sys
from pathlib import Path
from programs.runtime.key_value_store import KeyValueStore
store = KeyValueStore(
    Path(sys.argv[1]), "pairs", {"a": "TEXT"}, {"x": "TEXT NOT NULL"}, lambda note: print(note.text, flush=True)
)
store.put(("before",), ("kept",))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
for n in range(100):
    store.put((str(n),), ("x" * 20_000,))
assert all(store.get(str(n)) == ("x" * 20_000,) for n in range(100))
assert store.get("before") == ("kept",)
"""


def test_a_full_disk_ends_nothing_and_is_said_once(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    ended = subprocess.run(  # noqa: S603
        [sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert ended.returncode == 0, ended.stderr
    (said,) = ended.stdout.splitlines()
    assert said.startswith(f"warning: {path}: cannot be written (")
    assert KeyValueStore(path, "pairs", {"a": "TEXT"}, {"x": "TEXT NOT NULL"}).get("before") == ("kept",)


class TestStoredValuesOfAnotherShape:
    REQUEST = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}  # noqa: RUF012

    @pytest.mark.parametrize(
        "stored",
        [
            b"\xff",
            b"",
            b"[",
            b"[" * 5000,
            b"1" * 5000,
            b"null",
            b"[]",
            b'"text"',
            b"{}",
            b'{"choices": 3}',
            b'{"choices": [3]}',
            b'{"choices": [{"message": 3}]}',
            b'{"choices": [{"message": {"content": ""}}]}',
            b'{"_dspy_format": "dspy-lm15-result-v1"}',
            b'{"_dspy_format": "dspy-lm15-result-v1", "outputs": ["x"], "responses": [3], "cost": null}',
        ],
    )
    def test_an_answer_is_asked_for_again(self, tmp_path: Path, stored: bytes) -> None:
        path = tmp_path / "calls.sqlite"
        cache = ResponseCache(path)
        cache.put(self.REQUEST, {"choices": [{"message": {"content": "hi"}}]})
        assert cache.get(self.REQUEST) is not None
        made_before(path, ("UPDATE answers SET answer = CAST(? AS TEXT)", (stored,)))
        asked: list[bool] = []
        cache.this_call.check = lambda look: asked.append(True)
        assert cache.get(self.REQUEST) is None
        assert asked == [True], "budget and limits are checked before it is sent again"

    @pytest.mark.parametrize("phrases", [b"\xff", b"{}", b"[3]", b"[", b'"light"', b"[" * 5000])
    def test_traits_are_distilled_again(self, tmp_path: Path, phrases: bytes) -> None:
        path = tmp_path / "traits.sqlite"
        store = TraitStore(path)
        store.put("k", ["light"], Usage(calls=1))
        made_before(path, ("UPDATE phrases SET phrases = CAST(? AS TEXT)", (phrases,)))
        assert store.get("k") is None
        made_before(path, ("UPDATE phrases SET phrases = '[]', usage = '{\"calls\": \"x\"}'", ()))
        assert store.get("k") is None

    @pytest.mark.parametrize("vector", [b"123", b"", "text", 7, np.array([np.nan, 1], "<f4").tobytes()])
    def test_a_vector_is_computed_again(self, tmp_path: Path, vector: object) -> None:
        path = tmp_path / "embeddings.sqlite"
        encoder = LetterEncoder()
        expected = encoder.encode(["a cup"])
        store = EmbeddingStore(path, encoder)
        store.encode(["a cup"])
        made_before(path, ("UPDATE vectors SET vector = ?", (vector,)))
        np.testing.assert_array_equal(store.encode(["a cup"]), expected)


class TestDurableEntries:
    def test_they_are_there_or_the_caller_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(key_value_store, "_PATIENCE", 0.1)
        path = tmp_path / "pairs.sqlite"
        store = pairs(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(InputError, match="wait until that ends"):
                store.put_durably({("a", b"b"): ("x", 1)})
            assert store.get("a", b"b") is None
            other.execute("ROLLBACK")
        store.put_durably({("a", b"b"): ("x", 1)})
        assert pairs(path).get("a", b"b") == ("x", 1)
        assert store._database.execute("PRAGMA synchronous").fetchone() == (1,), "other entries are not slower after it"
        store.close()


def test_what_could_not_be_written_is_written_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_value_store, "_PATIENCE", 0.1)
    monkeypatch.setattr(key_value_store, "_PATIENCE_AFTERWARDS", 0.1)
    path, told = tmp_path / "pairs.sqlite", list[Event]()
    for locked_at_the_end in (False, True):
        store = pairs(path, told.append)
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            store.put(("a", b"b"), ("x", int(locked_at_the_end)))
            if not locked_at_the_end:
                other.execute("ROLLBACK")
            store.close()
        assert pairs(path).get("a", b"b") == ("x", 0)
    assert [event.text for event in told if isinstance(event, Note) and "1 new entries" in event.text]
