"""The journal survives kill -9, torn tails and threads, and refuses damage, mixed runs and a second process."""

from __future__ import annotations

import json
import math
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.runs.journal import Journal, RunManifest, read_journal
from programs.runtime.errors import InputError
from signatures.rows import Ranking, Status, Usage
from signatures.types import Motivation, Profile
from tests.support.paths import ROOT

MANIFEST = RunManifest(cases_sha256="c" * 64, ranker="knn", configuration={"k": 20, "mar": {"temperature": 0.9}})

FOREVER = """
import itertools, sys
from pathlib import Path
from evaluate.runs.journal import Journal, RunManifest
from signatures.rows import Ranking
manifest = RunManifest.model_validate_json(sys.argv[2])
with Journal.open(Path(sys.argv[1]), manifest) as journal:
    for i in itertools.count():
        journal.append(Ranking(user_id=f"u{i}", order=tuple(f"item {i} {j}" for j in range(30))))
        print(i, flush=True)
"""


def _ranking(user: str, *order: str) -> Ranking:
    return Ranking(user_id=user, order=order or ("b", "a"))


def _written(directory: Path, *rows: Ranking) -> bytes:
    with Journal.open(directory, MANIFEST) as journal:
        for row in rows:
            journal.append(row)
    return (directory / "journal.jsonl").read_bytes()


def test_what_was_written_comes_back_after_reopening(tmp_path: Path) -> None:
    rich = Ranking(
        user_id="ü\n1",
        order=("b", "a"),
        scores={"prior": [0.1, math.inf], "mar": [-math.inf, math.nan]},
        profile=Profile(
            motivations=(Motivation(dimension="value", description="“thrift”", strength="weak", evidence=(1, 2)),)
        ),
        usage=Usage(calls=2, usd=0.25, seconds=1.5),
        status=Status.UNPARSABLE,
        error="no list",
    )
    _written(tmp_path / "run", rich, _ranking("u2"))
    with Journal.open(tmp_path / "run", MANIFEST) as journal:
        rows = journal.rows()
        assert list(rows) == ["ü\n1", "u2"]
        assert rows["u2"] == _ranking("u2")
        assert math.isnan(rows["ü\n1"].scores["mar"].pop())
        rich.scores["mar"].pop()
        assert rows["ü\n1"] == rich


def test_every_line_is_json_with_its_checksum(tmp_path: Path) -> None:
    lines = _written(tmp_path, _ranking("u1"), _ranking("u2")).splitlines()
    assert len(lines) == 2
    for line in lines:
        record = json.loads(line)
        assert set(record) == {"sha256", "row"}
        assert len(record["sha256"]) == 16
        assert set(record["row"]) == {"user_id", "order"}


def test_latest_row_wins_and_failed_users_are_unresolved(tmp_path: Path) -> None:
    failed = Ranking(user_id="u1", order=(), status=Status.FAILED, error="timeout")
    with Journal.open(tmp_path, MANIFEST) as journal:
        journal.append(failed)
        journal.append(_ranking("u2"))
        journal.append(Ranking(user_id="u3", order=("a",), status=Status.UNPARSABLE))
        assert journal.resolved() == {"u2", "u3"}
        assert read_journal(tmp_path)[1]["u1"] == failed
        journal.append(_ranking("u1", "a", "b"))
        assert journal.resolved() == {"u1", "u2", "u3"}
    manifest, rows = read_journal(tmp_path)
    assert manifest == MANIFEST
    assert list(rows) == ["u1", "u2", "u3"] and rows["u1"].order == ("a", "b")


def test_kill_9_loses_no_acknowledged_row_and_a_second_process_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with subprocess.Popen(  # noqa: S603
        [sys.executable, "-c", FOREVER, str(run), MANIFEST.model_dump_json()],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        try:
            for _ in range(300):
                assert writer.stdout.readline(), "the writer died early"
            with pytest.raises(InputError, match=rf"open in another process \(process id {writer.pid}\)"):
                Journal.open(run, MANIFEST)
            assert len(read_journal(run)[1]) >= 300
        finally:
            writer.send_signal(signal.SIGKILL)
        acknowledged = 300 + writer.stdout.read().count("\n")
    with Journal.open(run, MANIFEST) as journal:
        rows = journal.rows()
        # One more may have been written without being acknowledged.
        assert len(rows) in (acknowledged, acknowledged + 1)
        for i in range(acknowledged):
            assert rows[f"u{i}"].order == tuple(f"item {i} {j}" for j in range(30))
        journal.append(_ranking("after"))
    assert "after" in read_journal(run)[1]


def test_a_tail_torn_anywhere_is_dropped_and_cut_off(tmp_path: Path) -> None:
    whole = _written(tmp_path, _ranking("u1"), _ranking("u2"))
    path = tmp_path / "journal.jsonl"
    sound = whole.index(b"\n") + 1
    for length in range(sound, len(whole)):
        path.write_bytes(whole[:length])
        assert list(read_journal(tmp_path)[1]) == ["u1"]
        assert path.stat().st_size == length, "reading changes nothing"
        with Journal.open(tmp_path, MANIFEST) as journal:
            assert path.read_bytes() == whole[:sound]
            journal.append(_ranking("u2"))
        assert path.read_bytes() == whole


@pytest.mark.parametrize("tail", [b"\0" * 200, b"garbage\n", b"\n"])
def test_a_tail_of_rubbish_is_dropped(tmp_path: Path, tail: bytes) -> None:
    whole = _written(tmp_path, _ranking("u1"))
    (tmp_path / "journal.jsonl").write_bytes(whole + tail)
    assert _written(tmp_path) == whole


@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_changed_byte_before_the_tail_is_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    directory = tmp_path_factory.mktemp("run")
    whole = bytearray(_written(directory, *(_ranking(f"u{i}") for i in range(3))))
    before_tail = len(whole) // 3 * 2
    at = data.draw(st.integers(0, before_tail - 2))
    whole[at] ^= data.draw(st.integers(1, 255))
    (directory / "journal.jsonl").write_bytes(whole)
    with pytest.raises(InputError, match=r"journal\.jsonl:[12]: the row was damaged"):
        Journal.open(directory, MANIFEST)
    with pytest.raises(InputError, match="the row was damaged"):
        read_journal(directory)


def test_a_failed_open_leaves_the_directory_free(tmp_path: Path) -> None:
    whole = _written(tmp_path, _ranking("u1"), _ranking("u2"))
    (tmp_path / "journal.jsonl").write_bytes(b"x" + whole)
    with pytest.raises(InputError):
        Journal.open(tmp_path, MANIFEST)
    (tmp_path / "journal.jsonl").write_bytes(whole)
    assert _written(tmp_path) == whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cases_sha256": "d" * 64}, "on cases with sha256 cccccccccccc, and these have dddddddddddd"),
        ({"ranker": "prior"}, 'ranker is "knn", given "prior"'),
        ({"configuration": {"k": 30, "mar": {"temperature": 0.9}}}, "configuration.k is 20, given 30"),
        (
            {"configuration": {"k": 20, "mar": {"temperature": 0.0}}},
            "configuration.mar.temperature is 0.9, given 0.0",
        ),
        ({"configuration": {"k": 20}}, "configuration.mar is only in the run"),
        (
            {"configuration": {"k": 20, "mar": {"temperature": 0.9}, "tau": 1}},
            "configuration.tau is only given",
        ),
    ],
)
def test_another_run_is_refused_and_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    before = _written(tmp_path, _ranking("u1"))
    with pytest.raises(InputError) as caught:
        Journal.open(tmp_path, MANIFEST.model_copy(update=change))
    assert words in str(caught.value) and str(tmp_path) in str(caught.value)
    assert (tmp_path / "journal.jsonl").read_bytes() == before


def test_what_is_recorded_since_a_later_version_is_compared_where_the_run_has_it(tmp_path: Path) -> None:
    _written(tmp_path / "older", _ranking("u1"))

    def manifest(version: int) -> RunManifest:
        return MANIFEST.model_copy(update={"configuration": MANIFEST.configuration | {"fit_versions": [version]}})

    with Journal.open(tmp_path / "older", manifest(2)) as journal:
        assert journal.resolved() == {"u1"}
    with Journal.open(tmp_path / "newer", manifest(1)) as journal:
        journal.append(_ranking("u1"))
    with pytest.raises(InputError, match=r"configuration\.fit_versions is \[1\], given \[2\]"):
        Journal.open(tmp_path / "newer", manifest(2))


def test_a_run_of_an_older_version_without_a_hash_of_its_data_goes_on(tmp_path: Path) -> None:
    _written(tmp_path, _ranking("u1"))
    before = (tmp_path / "manifest.json").read_bytes()
    assert b"dataset_sha256" not in before
    with Journal.open(tmp_path, MANIFEST.model_copy(update={"dataset_sha256": "e" * 64})) as journal:
        assert journal.resolved() == {"u1"}
    assert (tmp_path / "manifest.json").read_bytes() == before


def test_a_run_on_other_data_with_the_same_lists_is_refused(tmp_path: Path) -> None:
    with Journal.open(tmp_path, MANIFEST.model_copy(update={"dataset_sha256": "e" * 64})) as journal:
        journal.append(_ranking("u1"))
    with pytest.raises(InputError, match=r'dataset_sha256 is "eeee.*, given "ffff'):
        Journal.open(tmp_path, MANIFEST.model_copy(update={"dataset_sha256": "f" * 64}))


def test_date_and_versions_do_not_make_another_run(tmp_path: Path) -> None:
    _written(tmp_path, _ranking("u1"))
    later = RunManifest(**MANIFEST.model_dump(include={"cases_sha256", "ranker", "configuration"}), versions={"x": "2"})
    with Journal.open(tmp_path, later) as journal:
        assert journal.manifest == MANIFEST
        assert journal.resolved() == {"u1"}


def _file_in_the_way(path: Path) -> None:
    path.write_text("a file")


def _rows_without_manifest(path: Path) -> None:
    path.mkdir()
    (path / "journal.jsonl").write_text("mine")


def _truncated_manifest(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_text('{"format": "mllm3rec-run/1"')


def _future_manifest(path: Path) -> None:
    path.mkdir()
    (path / "manifest.json").write_text(MANIFEST.model_dump_json().replace("run/1", "run/9"))


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (_file_in_the_way, "cannot be used for a run"),
        (_rows_without_manifest, "not a run"),
        (_truncated_manifest, "not the manifest of a run"),
        (_future_manifest, "format"),
    ],
)
def test_directories_that_hold_no_run(tmp_path: Path, prepare: Callable[[Path], None], words: str) -> None:
    prepare(tmp_path / "run")
    with pytest.raises(InputError, match=words):
        Journal.open(tmp_path / "run", MANIFEST)


def test_reading_where_there_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a run directory"):
        read_journal(tmp_path)


def test_the_same_process_cannot_open_a_run_twice_but_again(tmp_path: Path) -> None:
    with Journal.open(tmp_path, MANIFEST) as journal, pytest.raises(InputError, match="another process"):
        Journal.open(tmp_path, MANIFEST)
    journal.close()
    with pytest.raises(ValueError, match="closed"):
        journal.append(_ranking("u1"))
    Journal.open(tmp_path, MANIFEST).close()


def test_threads_do_not_mix_their_lines(tmp_path: Path) -> None:
    with Journal.open(tmp_path, MANIFEST) as journal, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: journal.append(_ranking(f"u{i}", *(f"{i} {j}" for j in range(i % 90)))), range(500)))
    rows = read_journal(tmp_path)[1]
    assert len(rows) == 500
    assert all(rows[f"u{i}"].order[:1] == ((f"{i} 0",) if i % 90 else ("b",)) for i in range(500))


def test_a_row_that_does_not_fit_on_the_disk_leaves_no_half_line(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Journal.open(tmp_path, MANIFEST) as journal:
        journal.append(_ranking("u1"))
        size = (tmp_path / "journal.jsonl").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, limits[1]))
        try:
            with pytest.raises(OSError, match=r"journal\.jsonl"):
                journal.append(_ranking("u2", *("long" * 100,)))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert (tmp_path / "journal.jsonl").stat().st_size == size
        journal.append(_ranking("u3"))
        assert list(journal.rows()) == ["u1", "u3"]
