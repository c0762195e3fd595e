"""Files of run folders that were edited or damaged: refused with file and remedy, or written again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest

from evaluate.baselines.tuning import Tuned
from evaluate.experiments.study_reading import TUNE_AGAIN, is_done
from evaluate.runs.journal import _line, read_journal
from evaluate.runs.run_metrics import against_run, ranks_and_manifest, ranks_of, run_metrics
from programs.lm.ledger import read_calls
from programs.runtime import atomic
from programs.runtime.config_file import read_json
from programs.runtime.errors import InputError
from signatures.rows import Ranking
from tests.support.paths import OLD_FILES
from tests.support.runs import ITEMS, case

LISTWISE = OLD_FILES / "evaluated" / "listwise"

BROKEN = [b"", b"{", b"[" * 5000, b"7" * 5000, b"null", b"3", b"[1]", b'{"a": [1]}', b"\xff", b'{"a": "\\ud800"}']


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(LISTWISE, tmp_path / "run"))


@pytest.mark.parametrize("content", [*BROKEN, b"{}", b'{"nobody": "i1"}'])
def test_targets_that_are_none(run: Path, content: bytes) -> None:
    (run / "targets.json").write_bytes(content)
    with pytest.raises(InputError, match=r"targets\.json: .*delete it and evaluate the run again") as refused:
        ranks_and_manifest(run)
    assert len(str(refused.value)) < len(str(run)) + 500
    with pytest.raises(InputError, match=r"targets\.json"):
        against_run(LISTWISE, run)


@pytest.mark.parametrize("content", [*BROKEN, b"{}"])
def test_a_manifest_that_is_none(run: Path, content: bytes) -> None:
    (run / "manifest.json").write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json: not the manifest of a run"):
        read_journal(run)


@pytest.mark.parametrize("content", BROKEN)
def test_metrics_that_are_none_do_not_count_as_done(run: Path, content: bytes) -> None:
    assert is_done(run)
    (run / "metrics.json").write_bytes(content)
    assert not is_done(run)


@pytest.mark.parametrize(
    "content",
    [
        *BROKEN,
        b'{"ranker": "bpr", "seed": 0, "users": 3, "tried": [], "settings": {}}',
        b'{"ranker": "prior", "seed": 0, "users": 3, "tried": [{}], "settings": {}}',
        b'{"ranker": "bpr", "seed": 0, "users": 3, "tried": [{}], "settings": {"factors": "many"}}',
    ],
)
def test_tuned_settings_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bpr.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"^{path}: .*; {TUNE_AGAIN}$"):
        read_json(path, Tuned, TUNE_AGAIN)


def scored(**scores: list[float]) -> Ranking:
    return Ranking(user_id="u", order=ITEMS, scores=scores)


@pytest.mark.parametrize(
    "row", [scored(), scored(prior=[1.0]), scored(mar=[0.0] * 12), Ranking(user_id="u", order=ITEMS[:3])]
)
def test_a_row_that_does_not_fit_its_case(row: Ranking) -> None:
    with pytest.raises(InputError, match="user 'u'"):
        ranks_of([case("u")], {"u": row}, "prior")


@pytest.mark.parametrize("row", [scored(prior=[1.0]), Ranking(user_id="u", order=(*ITEMS[:-1], "other"))])
def test_metrics_of_a_row_that_does_not_fit_its_case(row: Ranking) -> None:
    with pytest.raises(InputError, match="user 'u'"):
        run_metrics("x", [case("u")], {"u": row})


@pytest.mark.parametrize(
    "body", [b"{}", b"[" * 5000, b'{"user_id": "\\ud800", "order": []}', b'{"user_id": "u", "order": [' + b"7" * 5000]
)
def test_a_row_of_another_kind_is_named_by_its_line(run: Path, body: bytes) -> None:
    whole = _line(Ranking(user_id="u", order=()))
    line = whole[:11] + hashlib.sha256(body).hexdigest()[:16].encode() + b'","row":' + body + b"}\n"
    with (run / "journal.jsonl").open("ab") as file:
        file.write(line)
    number = len((run / "journal.jsonl").read_bytes().splitlines())
    with pytest.raises(InputError, match=rf"journal\.jsonl:{number}: not a ranking"):
        read_journal(run)


def test_a_file_that_does_not_fit_on_the_disk_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(b"before")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(OSError, match=rf"No space left on device: '{path}'"):
        atomic.write_atomically(path, b"after")
    assert path.read_bytes() == b"before"
    assert [other.name for other in tmp_path.iterdir()] == ["metrics.json"]


@pytest.mark.parametrize("name", ["manifest.json", "journal.jsonl", "targets.json", "ledger.jsonl", "metrics.json"])
def test_a_pipe_is_not_waited_for(run: Path, name: str) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    if name == "metrics.json":
        assert not is_done(run)
        return
    with pytest.raises(InputError, match=rf"{name}: is not a regular file"):
        list(read_calls(run / name)) if name == "ledger.jsonl" else ranks_and_manifest(run)


def test_the_files_of_the_fixture_are_sound(run: Path) -> None:
    assert ranks_and_manifest(run)[1].keys() == json.loads((run / "targets.json").read_bytes()).keys()
    assert read_journal(run)[1]
