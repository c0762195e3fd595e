"""Files that grow line by line write through no symbolic link, and lose a line that a kill has torn."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evaluate.runs.journal import Journal, RunManifest
from mllm3rec.stages.worker_ledgers import merge_ledgers, new_ledger_path
from programs.lm.ledger import Budget, Call, Ledger
from programs.runtime.appending import cut_off_torn_line, open_to_append
from programs.runtime.errors import InputError

CALL = Call(role="mar", model="m")
LINE = b'{"role":"mar","model":"m"}\n'
LINK = "is a symbolic link"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A file outside of the folder, without an end of a line."""
    path = tmp_path / "mine.txt"
    path.write_text("my notes")
    return path


def test_a_journal_that_is_a_link(tmp_path: Path, mine: Path) -> None:
    run, manifest = tmp_path / "run", RunManifest(cases_sha256="c" * 64, ranker="knn")
    Journal.open(run, manifest).close()
    (run / "journal.jsonl").unlink()
    (run / "journal.jsonl").symlink_to(mine)
    with pytest.raises(InputError, match=LINK):
        Journal.open(run, manifest)
    assert mine.read_text() == "my notes"


@pytest.mark.parametrize("exists", [True, False])
def test_a_ledger_that_is_a_link(tmp_path: Path, mine: Path, exists: bool) -> None:
    path = tmp_path / "ledger.jsonl"
    path.symlink_to(mine if exists else tmp_path / "new.txt")
    with pytest.raises(InputError, match=LINK):
        Ledger(path)
    worker = Ledger.of_worker(path, Budget())
    with pytest.raises(InputError, match=LINK):
        worker.record(CALL)
    with pytest.raises(InputError, match=LINK):
        merge_ledgers(tmp_path, path)
    assert mine.read_text() == "my notes" and not (tmp_path / "new.txt").exists()


def test_a_ledger_of_a_worker_that_is_a_link(tmp_path: Path, mine: Path) -> None:
    path = new_ledger_path(tmp_path)
    path.parent.mkdir()
    path.symlink_to(mine)
    with pytest.raises(InputError, match=LINK):
        merge_ledgers(tmp_path, tmp_path / "ledger.jsonl")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "ledger.jsonl")
    with pytest.raises(InputError, match="not a regular file"):
        Ledger.of_worker(tmp_path / "ledger.jsonl", Budget()).record(CALL)


def test_a_torn_line_is_cut_off_before_workers_append(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    path.write_bytes(LINE + LINE[:9])
    merge_ledgers(tmp_path, path)
    worker = Ledger.of_worker(path, Budget())
    worker.record(CALL)
    worker.close()
    assert path.read_bytes() == 2 * LINE


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"", b""), (b"a", b""), (b"a\n", b"a\n"), (b"a\nb", b"a\n"), (b"a\n" + b"b" * 200_000, b"a\n")],
)
def test_what_is_cut_off(tmp_path: Path, before: bytes, after: bytes) -> None:
    path = tmp_path / "lines"
    path.write_bytes(before)
    descriptor = open_to_append(path)
    cut_off_torn_line(descriptor)
    os.write(descriptor, b"c\n")
    os.close(descriptor)
    assert path.read_bytes() == after + b"c\n"
