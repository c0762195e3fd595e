"""What the view reads of a folder: kinds of folders, rows by offset, cases by line, notes, and who works where."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path

import pytest

import mllm3rec as m3
from evaluate.protocol.cases import load_cases
from evaluate.runs.journal import Journal, RunManifest, read_journal
from evaluate.runs.run_metrics import ranks_of
from mllm3rec.trackers.tracked_record import tracked_record
from mllm3rec.view.case_lines import CaseLines, ListedTarget
from mllm3rec.view.folder import contents_of
from mllm3rec.view.ledger_lines import LedgerLines
from mllm3rec.view.library import SCAN_EVERY, Library
from mllm3rec.view.notes import NoteBook, RunNote
from mllm3rec.view.playground_page import chosen_data
from mllm3rec.view.process import interrupt, working_process
from mllm3rec.view.rows import RunRows
from mllm3rec.view.run_facts import RunFacts, ViewedRun
from programs.lm.ledger import Call, Ledger
from programs.runtime.errors import InputError
from programs.runtime.lock import LOCK
from signatures.rows import Ranking, Status
from tests.support.cases import cases_file
from tests.support.command_line import CommandLine


@pytest.fixture
def folder(cli: CommandLine, tmp_path: Path) -> Path:
    """A run of the prior on the demo store, and its cases."""
    cases_file(tmp_path / "cases.jsonl", 6, part="test")
    assert (
        cli("evaluate", tmp_path / "cases.jsonl", "--ranker", "prior", "--out", tmp_path / "runs" / "prior").code == 0
    )
    return tmp_path


def test_folders_are_told_apart(folder: Path) -> None:
    (folder / "runs" / ".lock").write_text("1\n")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "manifest.json").write_text('{"format": "mllm3rec-run/1"}')
    (folder / "art").mkdir()
    (folder / "art" / "manifest.json").write_text('{"format": "mllm3rec-artifact/1"}')
    (folder / "other").mkdir()
    (folder / "other" / "manifest.json").write_text("[1]")
    contents = contents_of(folder)
    assert [(one.kind, one.name) for one in contents.found] == [
        ("artifact", "art"),
        ("comparison", "runs"),
        ("run", "runs/prior"),
    ]
    assert contents.cases == {load_cases(folder / "cases.jsonl").sha256: [folder / "cases.jsonl"]}
    with pytest.raises(InputError, match="no run"):
        contents.named("run", "../runs/prior")


def test_cases_may_lie_elsewhere(folder: Path) -> None:
    assert contents_of(folder / "runs").cases == {}
    assert len(contents_of(folder / "runs", folder / "cases.jsonl").cases) == 1


def test_cases_that_are_not_there_are_refused(folder: Path, tmp_path: Path, cli: CommandLine) -> None:
    (tmp_path / "notes.jsonl").write_text("{}\n")
    (tmp_path / "later").mkdir()
    Library(folder, [tmp_path / "later"])
    for name, problem in (("none.jsonl", "no such file or folder"), ("notes.jsonl", "no cases file")):
        with pytest.raises(InputError, match=f"{name}: {problem}; give"):
            Library(folder, [tmp_path / "later", tmp_path / name])
    ended = cli("view", folder, "--cases", tmp_path / "none.jsonl", "--port", 0)
    assert ended.code == 2 and "no such file or folder" in " ".join(ended.err.split())


def test_cases_under_the_header_of_others_are_not_taken(folder: Path) -> None:
    cases = load_cases(folder / "cases.jsonl")
    path = folder / "runs" / "theirs" / "cases.jsonl"
    path.parent.mkdir()
    head, *lines = (folder / "cases.jsonl").read_text().splitlines(keepends=True)
    changed = [json.loads(line) for line in lines]
    path.write_text(head + "".join(json.dumps(one | {"target": one["candidates"][0]}) + "\n" for one in changed))
    library = Library(folder, [path])
    assert library.contents.cases == {cases.sha256: [folder / "cases.jsonl", path, path]}
    run = library.run("runs/prior")
    assert run.cases is not None
    assert run.cases.path == folder / "cases.jsonl"
    (folder / "cases.jsonl").unlink()
    assert Library(folder).run("runs/prior").cases is None


def test_a_run_that_was_made_again_in_its_folder_is_another_one(cli: CommandLine, folder: Path) -> None:
    library, out = Library(folder), folder / "runs" / "prior"
    before = library.run("runs/prior")
    assert before.index(60)
    assert before.facts().ranker == "prior"
    shutil.rmtree(out)
    cases_file(folder / "more.jsonl", 9, part="test", negatives=9)
    ended = cli("evaluate", folder / "more.jsonl", "--ranker", "popularity", "--out", out)
    assert ended.code == 0, ended.err
    time.sleep(SCAN_EVERY + 0.5)  # until the folder is looked at again, for the other cases
    after = library.run("runs/prior")
    assert after.index(60)
    manifest, rows = read_journal(out)
    assert (after.facts().ranker, after.facts().cases) == ("popularity", manifest.cases_sha256)
    assert after.rows.ranks() == ranks_of(load_cases(folder / "more.jsonl").cases, rows)
    assert library.run("runs/prior") is after


def test_rows_are_those_of_the_journal(folder: Path) -> None:
    _, rows = read_journal(folder / "runs" / "prior")
    cases = load_cases(folder / "cases.jsonl")
    read = RunRows(folder / "runs" / "prior" / "journal.jsonl", CaseLines(folder / "cases.jsonl").listed)
    user = cases[3].user_id
    assert read.find(user) == rows[user]  # before there is an index
    assert read.extend()
    assert read.find(user) == rows[user]
    assert read.find("nobody") is None
    assert read.ranks() == read.ranks(of_prior=True) == ranks_of(cases.cases, rows)
    assert [one.user_id for one in read.users()] == list(rows)
    item = rows[user].order[0]
    assert {row.user_id for row in read.containing(f'"{item}"'.encode())} == {
        name for name, row in rows.items() if item in row.order
    }


def test_only_what_was_appended_is_read_again(tmp_path: Path) -> None:
    manifest = RunManifest(cases_sha256="0", ranker="r")
    rows = RunRows(tmp_path / "journal.jsonl")
    assert rows.extend()
    with Journal.open(tmp_path, manifest) as journal:
        journal.append(Ranking(user_id='a "quoted" ü', order=("x",)))
        journal.append(Ranking(user_id="b", order=(), status=Status.FAILED, error="down"))
        assert rows.extend()
        assert (len(rows), rows.spent().failed) == (2, 1)
        before = rows.indexed
        journal.append(Ranking(user_id="b", order=("x",), status=Status.UNPARSABLE))
        found = rows.find("b")  # the newest row, not yet in the index
        assert found is not None
        assert found.status is Status.UNPARSABLE
        assert rows.extend()
    assert rows.indexed > before
    assert (len(rows), rows.spent().failed, rows.spent().unparsable) == (2, 0, 1)
    assert rows.find('a "quoted" ü') is not None


def test_infinite_scores_are_read(tmp_path: Path) -> None:
    with Journal.open(tmp_path, RunManifest(cases_sha256="0", ranker="r")) as journal:
        scores = {"prior": [float("-inf"), 1.0, float("nan")]}
        journal.append(Ranking(user_id="a", order=("x", "y", "z"), scores=scores))
    path = tmp_path / "journal.jsonl"
    assert b"-Infinity" in path.read_bytes()
    ranks = {}
    for target in "xyz":
        rows = RunRows(path, lambda user, target=target: ListedTarget(["x", "y", "z"], target))  # type: ignore[misc]
        assert rows.extend()
        ranks[target] = rows.ranks(of_prior=True)["a"]
    assert ranks["y"] == 1
    assert {ranks["x"], ranks["z"]} == {2, 3}  # equal, as in every report
    assert rows.find("a") is not None


def test_a_row_longer_than_can_be_read_at_once_is_indexed(tmp_path: Path) -> None:
    with Journal.open(tmp_path, RunManifest(cases_sha256="0", ranker="r")) as journal:
        journal.append(Ranking(user_id="long", order=(), status=Status.FAILED, error="x" * (1 << 20)))
        journal.append(Ranking(user_id="short", order=("x",)))
    rows = RunRows(tmp_path / "journal.jsonl")
    for _ in range(3):
        whole = rows.extend(0)
    assert whole
    assert len(rows) == 2


def test_a_journal_that_was_replaced_is_indexed_anew(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, users in ((first, "ab"), (second, "cde")):
        with (
            Journal.open(folder, RunManifest(cases_sha256="0", ranker="r")) as journal,
            closing(Ledger(folder / "ledger.jsonl")) as ledger,
        ):
            for number, user in enumerate(users):
                journal.append(Ranking(user_id=user, order=("x",)))
                ledger.record(Call(role="mar", model="m", about=f"{ord(user):016x}", usd=number + 1))
    rows, lines = RunRows(first / "journal.jsonl"), LedgerLines(first / "ledger.jsonl")
    assert rows.extend()
    assert len(lines.about(f"{ord('a'):016x}")) == 1
    assert lines.spent().usd == 3
    for name in ("journal.jsonl", "ledger.jsonl"):
        (second / name).replace(first / name)
    found = rows.find("d")  # not at the offset of a user of the earlier journal
    assert found is not None
    assert found.user_id == "d"
    assert rows.extend()
    assert [one.user_id for one in rows.users()] == ["c", "d", "e"]
    assert (lines.about(f"{ord('a'):016x}"), len(lines.about(f"{ord('d'):016x}"))) == ([], 1)
    assert lines.spent().usd == 6


def test_a_row_cut_off_is_left_for_later_and_a_damaged_one_is_named(tmp_path: Path) -> None:
    with Journal.open(tmp_path, RunManifest(cases_sha256="0", ranker="r")) as journal:
        journal.append(Ranking(user_id="a", order=("x",)))
    path = tmp_path / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:20])
    rows = RunRows(path)
    rows.extend()
    assert len(rows) == 1
    path.write_bytes(whole.replace(b'"x"', b'"y"'))
    rows = RunRows(path)
    rows.extend()
    with pytest.raises(InputError, match="damaged"):
        rows.find("a")
    path.write_bytes(b"[]\n")
    with pytest.raises(InputError, match="not a row of a journal; delete that line"):
        RunRows(path).extend()


def test_calls_are_found_by_what_they_are_about(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    lines = LedgerLines(tmp_path / "ledger.jsonl")
    assert lines.about("0" * 16) == []
    for number in range(3):
        sent = ledger.record_sent(Call(role="mar", model="m", about=f"{number:016x}", in_flight=True))
        ledger.record(Call(role="mar", model="m", about=f"{number:016x}", id=sent, usd=number))
    ledger.record_sent(Call(role="mar", model="m", about=f"{7:016x}", in_flight=True))
    assert [call.usd for call in lines.about(f"{1:016x}")] == [1]
    assert [call.in_flight for call in lines.about(f"{7:016x}")] == [True]
    ledger.record(Call(role="mar", model="m", about=f"{1:016x}", hit=True))
    assert [call.hit for call in lines.about(f"{1:016x}")] == [False, True]
    assert lines.about("not a hash") == []
    assert lines.spent() == ledger.total()
    ledger.close()


def test_a_line_that_is_too_long_to_be_a_call_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mllm3rec.view.ledger_lines.LONGEST_LINE", 500)
    path = tmp_path / "ledger.jsonl"
    with closing(Ledger(path)) as ledger:
        ledger.record(Call(role="mar", model="m", about=f"{1:016x}", usd=1))
    end = path.stat().st_size
    with path.open("ab") as file:
        file.write(b"x" * 501)
    lines = LedgerLines(path)
    with pytest.raises(InputError, match=f"at byte {end:,}: a line is too long to be a call"):
        lines.about(f"{1:016x}")
    assert lines.spent().usd == 1


def test_facts_of_an_unfinished_run_are_those_that_it_ends_with(folder: Path) -> None:
    path = folder / "runs" / "prior"
    run = ViewedRun("prior", path, CaseLines(folder / "cases.jsonl"))
    finished = run.facts()
    assert finished.state == "finished"
    (path / "metrics.json").unlink()
    unfinished = run.facts()
    assert unfinished.state == "stopped"
    assert unfinished.metrics == finished.metrics
    (path / "manifest.json").write_text("{}")
    assert "manifest" in ViewedRun("prior", path, None).facts().problem


def test_no_figures_of_an_earlier_session_are_left_beside_rows_of_an_interrupted_one(folder: Path) -> None:
    cases, path = load_cases(folder / "cases.jsonl"), folder / "runs" / "own"

    def session(failing: Collection[int], error: type[BaseException]) -> m3.Evaluation:
        class Own:
            name = "own"

            def rank(self, case: m3.Case) -> m3.Ranking:
                if [one.user_id for one in cases].index(case.user_id) in failing:
                    raise error
                return m3.Ranking(user_id=case.user_id, order=case.candidates)

        return m3.evaluate(cases, Own(), out=path)

    def facts() -> RunFacts:
        return ViewedRun("own", path, CaseLines(folder / "cases.jsonl")).facts()

    session((3, 5), OSError)
    assert (facts().users, facts().failed, facts().state) == (4, 2, "stopped")
    assert tracked_record(path).metrics["users"] == 4
    with pytest.raises(KeyboardInterrupt):
        session([5], KeyboardInterrupt)
    assert (facts().users, facts().failed, facts().state) == (5, 1, "stopped")
    with pytest.raises(InputError, match=r"has no metrics\.json yet"):
        tracked_record(path)
    for _ in range(2):  # a session that adds no row leaves it finished
        session((), OSError)
        assert (facts().users, facts().state) == (6, "finished")


def test_the_playground_reads_data_by_the_columns_of_its_cases(cli: CommandLine, folder: Path) -> None:
    sales = folder / "sales.csv"
    rows = [f"U{user},I{(user + step) % 9},2024-01-{step + 1:02}" for user in range(12) for step in range(6)]
    sales.write_text("\n".join(["who,what,bought", *rows]) + "\n")
    columns = "user_id=who,item_id=what,timestamp=bought"
    drawn = cli("cases", sales, "--columns", columns, "--negatives", 2, "--out", folder / "own.jsonl")
    assert drawn.code == 0, drawn.err
    library = Library(folder)
    assert set(chosen_data(library, str(sales)).sequences) == {f"U{user}" for user in range(12)}
    assert "S0001" in chosen_data(library, "demo").sequences
    with pytest.raises(InputError, match="not that of a run"):
        chosen_data(library, str(folder))


def test_notes_are_kept_beside_the_runs(folder: Path) -> None:
    before = (folder / "runs" / "prior" / "manifest.json").read_bytes()
    book = NoteBook(folder)
    assert book.read() == {}
    book.write("runs/prior", RunNote.written("<b>bold</b>", "a, b"))
    assert NoteBook(folder).read() == {"runs/prior": RunNote(note="<b>bold</b>", tags=("a", "b"))}
    book.write("runs/prior", RunNote())
    assert book.read() == {}
    assert (folder / "runs" / "prior" / "manifest.json").read_bytes() == before
    book.path.write_text("{")
    with pytest.raises(InputError, match="correct it, or delete it"):
        book.read()


HOLD = """
import sys, time
from pathlib import Path
from programs.runtime.lock import owned
try:
    with owned(Path(sys.argv[1])):
        print("locked", flush=True)
        time.sleep(60)
except KeyboardInterrupt:
    sys.exit(7)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says which files a process has open")
class TestTheProcessOfAFolder:
    def test_it_gets_ctrl_c(self, tmp_path: Path) -> None:
        command = [sys.executable, "-c", HOLD, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, restore_signals=True) as holder:  # noqa: S603
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"locked\n"
            assert working_process(tmp_path) == holder.pid
            assert interrupt(tmp_path) == holder.pid
            assert holder.wait(20) == 7
        assert working_process(tmp_path) is None

    def test_another_process_with_that_id_is_left_alone(self, tmp_path: Path) -> None:
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as other:
            try:
                (tmp_path / LOCK).write_text(f"{other.pid}\n")
                assert working_process(tmp_path) is None
                with pytest.raises(InputError, match="no process works here"):
                    interrupt(tmp_path)
                time.sleep(0.2)
                assert other.poll() is None
            finally:
                os.kill(other.pid, signal.SIGKILL)

    def test_a_lock_that_names_nobody(self, tmp_path: Path) -> None:
        assert working_process(tmp_path) is None
        (tmp_path / LOCK).write_text(json.dumps("nobody"))
        assert working_process(tmp_path) is None
