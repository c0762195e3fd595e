"""A folder that a stranger made or a crash left: its own line says what is wrong, and all others are shown."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluate.protocol.cases import recorded_protocol
from evaluate.runs.directory import JOURNAL, MANIFEST
from evaluate.runs.journal import Journal, RunManifest, stored_manifest
from mllm3rec.view.case_lines import ListedTarget
from mllm3rec.view.item_page import _shown
from mllm3rec.view.library import Library
from mllm3rec.view.motivation_page import _counts
from mllm3rec.view.process import working_process
from mllm3rec.view.rows import RunRows
from optimize.candidates import Candidates
from programs.lm.fresh_answers import SALT_FILE, fresh_answers
from programs.runtime import config_file
from programs.runtime.errors import InputError
from programs.runtime.lock import LOCK
from signatures.rows import Ranking

ROW = {"user_id": "u", "order": ["a", "b"]}


def run_in(folder: Path, *rows: object) -> Path:
    """A run with rows as they are, each with the right checksum."""
    with Journal.open(folder, RunManifest(cases_sha256="0" * 64, ranker="r")) as journal:
        journal.append(Ranking(user_id="first", order=("a",)))
    with (folder / JOURNAL).open("ab") as file:
        for row in rows:
            body = json.dumps(row, separators=(",", ":")).encode()
            digest = hashlib.sha256(body).hexdigest()[:16].encode()
            file.write(b'{"sha256":"' + digest + b'","row":' + body + b"}\n")
    return folder


def a_pipe(lock: Path) -> None:
    os.mkfifo(lock)


def a_link(lock: Path) -> None:
    lock.symlink_to("/dev/zero")


def a_huge_file(lock: Path) -> None:
    with lock.open("wb") as file:
        file.truncate(1 << 40)


@pytest.mark.parametrize("make", [a_pipe, a_link, a_huge_file])
def test_a_lock_that_is_none(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / LOCK)
    assert working_process(tmp_path) is None


@pytest.mark.parametrize(
    "row",
    [
        ROW | {"user_id": ["u"]},
        ROW | {"user_id": 5},
        ROW | {"order": 5},
        ROW | {"order": "ab"},
        ROW | {"status": ["ok"]},
        [ROW],
    ],
)
def test_an_odd_row_is_said_on_the_line_of_its_run(tmp_path: Path, row: object) -> None:
    run_in(tmp_path / "odd", row)
    run_in(tmp_path / "sound", ROW)
    odd, sound = (run.facts() for run in Library(tmp_path).runs())
    assert "not a row of a journal" in odd.problem
    assert "delete" not in odd.problem  # it was written as it is
    assert (sound.problem, sound.users) == ("", 2)


@pytest.mark.parametrize("scores", [5, ["x"], {"prior": 5}, {"prior": [1.0, None]}])
def test_odd_scores_are_said_where_the_target_is_known(tmp_path: Path, scores: object) -> None:
    folder = run_in(tmp_path, ROW | {"scores": scores})
    with pytest.raises(InputError, match="not a row of a journal"):
        RunRows(folder / JOURNAL, lambda user: ListedTarget(["a", "b"], "a")).extend()


@pytest.mark.parametrize(
    "odd",
    [
        {"traits": ["x"]},
        {"traits": [{"item_id": "a", "phrases": 5}]},
        {"profile": {"motivations": [{"dimension": "fun"}]}},
        {"profile": {"motivations": 5, "dimension": "fun"}},
    ],
)
def test_odd_parts_of_rows_are_named_on_the_pages_of_items_and_motivations(tmp_path: Path, odd: object) -> None:
    assert isinstance(odd, dict)
    run_in(tmp_path / "run", ROW | odd)
    (run,) = Library(tmp_path).runs()
    with pytest.raises(InputError, match=r"journal\.jsonl"):
        _shown(run, "b")
    if "profile" in odd:
        with pytest.raises(InputError, match=r"journal\.jsonl"):
            _counts(run)


def test_cases_without_an_end_of_a_line_are_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    with path.open("wb") as file:
        file.write(b'{"sha256": "')
        file.truncate(1 << 40)
    assert Library(tmp_path).contents.cases == {}
    with pytest.raises(InputError, match="not a cases file"):
        recorded_protocol(path)


def test_a_manifest_without_an_end_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / MANIFEST).open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="is larger than 16 MiB"):
        stored_manifest(tmp_path)
    with pytest.raises(InputError, match="is larger than 256 MiB"):
        config_file.read_json(tmp_path / MANIFEST, dict, "delete it")


@pytest.mark.parametrize("make", [a_pipe, a_link, a_huge_file])
def test_pools_and_salts_that_are_no_files(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / SALT_FILE)
    with pytest.raises(InputError, match=SALT_FILE), fresh_answers(False, tmp_path):
        pass
    with pytest.raises(InputError, match=SALT_FILE):
        Candidates.load(tmp_path / SALT_FILE)


def test_a_salt_that_is_none(tmp_path: Path) -> None:
    (tmp_path / SALT_FILE).write_bytes(b"\xff\n")
    with pytest.raises(InputError, match="choose another folder"), fresh_answers(False, tmp_path):
        pass
