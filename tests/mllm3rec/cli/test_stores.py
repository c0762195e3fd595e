"""Stores of the cache folder that are locked, damaged or full while a run uses them: the run goes on, and says so."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from evaluate.runs.journal import read_journal
from programs.runtime import key_value_store
from tests.support.cases import cases_file
from tests.support.command_line import CommandLine
from tests.support.fake_server import FakeOpenAI
from tests.support.files import overwrite_pages
from tests.support.runs import judgements


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A locked store is not waited for."""
    monkeypatch.setattr(key_value_store, "_PATIENCE", 0.05)
    monkeypatch.setattr(key_value_store, "_PATIENCE_AFTERWARDS", 0.01)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another process is in the middle of writing to a database."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def damage(path: Path) -> None:
    """All pages but the first are gone; what was in the log is in the file before."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    overwrite_pages(path)


def evaluated(cli: CommandLine, tmp_path: Path, server: FakeOpenAI, out: str) -> tuple[dict[str, object], str]:
    """The figures of a run, and what it said."""
    arguments = ["evaluate", tmp_path / "c.jsonl", "--ranker", "listwise", "--model", server.model()]
    ended = cli(*arguments, "--out", tmp_path / out, "--json")
    assert ended.code == 0, ended.err
    return json.loads(ended.out), ended.err


@pytest.mark.parametrize("store", ["calls", "traits"])
def test_a_store_that_stays_locked(cli: CommandLine, tmp_path: Path, server: FakeOpenAI, store: str) -> None:
    cases_file(tmp_path / "small.jsonl", 1, part="all")
    cases_file(tmp_path / "c.jsonl", 3, part="all")
    path = tmp_path / "cache" / f"{store}.sqlite"
    first = cli(
        "evaluate", tmp_path / "small.jsonl", "--ranker", "listwise", "--model", server.model(), "--out", tmp_path / "0"
    )
    assert first.code == 0
    with locked(path):
        figures, said = evaluated(cli, tmp_path, server, "1")
    assert figures["users"] == 3 and figures["unresolved"] == 0
    assert said.count(f"warning: {path}: cannot be written (database is locked)") == 1
    paid = len(server.bodies)
    again, said = evaluated(cli, tmp_path, server, "2")
    assert again["metrics"] == figures["metrics"]
    assert "warning" not in said
    assert len(server.bodies) - paid <= (paid if store == "calls" else 0), "what could not be kept is asked again"


@pytest.mark.parametrize("store", ["calls", "traits"])
def test_a_store_with_damaged_pages(cli: CommandLine, tmp_path: Path, server: FakeOpenAI, store: str) -> None:
    cases_file(tmp_path / "c.jsonl", 3, part="all")
    _, said = evaluated(cli, tmp_path, server, "1")
    assert "warning" not in said
    path = tmp_path / "cache" / f"{store}.sqlite"
    damage(path)
    _, said = evaluated(cli, tmp_path, server, "2")
    assert said.count(f"warning: {path}: cannot be read (database disk image is malformed)") == 1
    rows = [judgements(read_journal(tmp_path / out)[1]) for out in ("1", "2")]
    assert rows[0] == rows[1]


def test_a_store_that_is_no_database_is_refused_before_anything_is_sent(
    cli: CommandLine, tmp_path: Path, server: FakeOpenAI
) -> None:
    cases_file(tmp_path / "c.jsonl", 3, part="all")
    path = tmp_path / "cache" / "calls.sqlite"
    path.parent.mkdir()
    path.write_bytes(b"no database at all, but long enough to be looked at" * 20)
    ended = cli(
        "evaluate", tmp_path / "c.jsonl", "--ranker", "listwise", "--model", server.model(), "--out", tmp_path / "o"
    )
    assert ended.code == 2
    assert f"error: {path}: cannot be used as a store (file is not a database); delete it" in ended.err
    assert len(ended.err.strip().splitlines()) <= 3 and "Traceback" not in ended.err
    assert not server.bodies


def test_stored_answers_of_another_shape_are_asked_again(cli: CommandLine, tmp_path: Path, server: FakeOpenAI) -> None:
    cases_file(tmp_path / "c.jsonl", 3, part="all")
    first, _ = evaluated(cli, tmp_path, server, "1")
    paid = len(server.bodies)
    for store, column, table in (("calls", "answer", "answers"), ("traits", "phrases", "phrases")):
        with closing(sqlite3.connect(tmp_path / "cache" / f"{store}.sqlite")) as database, database:
            database.execute(f"UPDATE {table} SET {column} = '[1]'")  # noqa: S608 - our own names
    again, _ = evaluated(cli, tmp_path, server, "2")
    assert again["metrics"] == first["metrics"]
    assert len(server.bodies) == 2 * paid


def test_a_ledger_with_a_foreign_byte_is_named_with_its_line(
    cli: CommandLine, tmp_path: Path, server: FakeOpenAI
) -> None:
    cases_file(tmp_path / "c.jsonl", 3, part="all")
    evaluated(cli, tmp_path, server, "1")
    path = tmp_path / "1" / "ledger.jsonl"
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"role":"mar"', b'"role":"m\xffr"', 1))
    number = content[: content.index(b'"role":"mar"')].count(b"\n") + 1
    arguments = ["evaluate", tmp_path / "c.jsonl", "--ranker", "listwise", "--model", server.model()]
    ended = cli(*arguments, "--out", tmp_path / "1")
    assert ended.code == 2
    assert f"error: {path}:{number}: not a ledger line" in ended.err
    assert "Traceback" not in ended.err
    path.write_bytes(content)
    assert cli(*arguments, "--out", tmp_path / "1").code == 0
