"""TREC files: what others compute from ours, and outside runs on our lists."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mllm3rec as m3
from evaluate.runs.trec import read_trec_run, trec_id, write_trec
from programs.runtime.environment import variable
from programs.runtime.errors import InputError
from signatures.rows import Ranking
from tests.support.command_line import CommandLine

ir_measures = pytest.importorskip("ir_measures", reason="pip install ir-measures")


@pytest.fixture(autouse=True)
def hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder without weights."""
    monkeypatch.setenv(variable("encoder"), "hashing")


@pytest.fixture(scope="module")
def cases() -> m3.Cases:
    return m3.draw_cases(m3.load_dataset("demo"), part="test", users=20)


def run_file(path: Path, rows: Iterable[tuple[str, str, float]]) -> Path:
    lines = [f"{user} Q0 {item} {rank} {score} theirs\n" for rank, (user, item, score) in enumerate(rows, start=1)]
    path.write_text("".join(lines), "utf-8")
    return path


@pytest.mark.parametrize("ranker", ["prior", "popularity", "random"])
def test_others_compute_the_same_from_our_files(cases: m3.Cases, tmp_path: Path, ranker: str) -> None:
    result = m3.evaluate(cases, ranker, out=tmp_path / "run", ks=[1, 10])
    files = write_trec(tmp_path / "run", tmp_path / "trec")
    assert (files.users, files.unresolved) == (20, 0)
    names = {"NDCG@10": "nDCG@10", "HR@1": "Success@1", "MRR@10": "RR@10", "MAP@10": "AP@10"}
    measures = {name: ir_measures.parse_measure(theirs) for name, theirs in names.items()}
    qrels, run = ir_measures.read_trec_qrels(str(files.qrels)), ir_measures.read_trec_run(str(files.run))
    theirs = ir_measures.calc_aggregate(measures.values(), qrels, run)
    for name, measure in measures.items():
        assert theirs[measure] == pytest.approx(result.further[name].mean, abs=1e-9), name


def test_our_own_file_comes_back_as_the_same_ranking(cases: m3.Cases, tmp_path: Path) -> None:
    prior = m3.evaluate(cases, "prior", out=tmp_path / "run")
    files = write_trec(tmp_path / "run", tmp_path / "trec")
    events: list[m3.Event] = []
    again = m3.evaluate(cases, f"run:{files.run}", against=prior, on_event=events.append)
    assert again.ranker == "prior"
    assert {user: row.order for user, row in again.rows.items()} == {u: row.order for u, row in prior.rows.items()}
    assert again.against["NDCG@10/30"].mean == 0
    assert not [event for event in events if isinstance(event, m3.Note) and "no line" in event.text]


def test_an_outside_run_is_ranked_by_its_scores_and_misses_come_last(cases: m3.Cases, tmp_path: Path) -> None:
    half = [(case.user_id, item, float(len(item))) for case in cases for item in case.candidates[:15]]
    scores = {(user, item): float(n) for n, (user, item, _) in enumerate(half)}
    elsewhere = [(cases[0].user_id, item, 99.0) for item in cases.dataset.items if item not in cases[0].candidates][:20]
    path = run_file(tmp_path / "outside.txt", [*elsewhere, *((*pair, score) for pair, score in scores.items())])
    events: list[m3.Event] = []
    result = m3.evaluate(cases, f"run:{path}", against=m3.evaluate(cases, "prior"), on_event=events.append)
    assert result.ranker == "theirs" and result.against
    for case in cases:
        order = result.rows[case.user_id].order
        assert order[:15] == tuple(sorted(case.candidates[:15], key=lambda item: -scores[case.user_id, item]))
        assert set(order[15:]) == set(case.candidates[15:]) and order[15:] != case.candidates[15:]
    (note,) = [event.text for event in events if isinstance(event, m3.Note) and "no line" in event.text]
    assert "300 of 600 candidates (0 of 20 users have none at all): they are ranked last, in random order" in note


def test_a_resumed_run_needs_the_same_file(cases: m3.Cases, tmp_path: Path) -> None:
    rows = [(case.user_id, item, float(n)) for case in cases for n, item in enumerate(case.candidates)]
    path = run_file(tmp_path / "outside.txt", rows)
    m3.evaluate(cases, f"run:{path}", out=tmp_path / "run")
    m3.evaluate(cases, f"run:{path}", out=tmp_path / "run")
    run_file(path, [(user, item, -score) for user, item, score in rows])
    with pytest.raises(InputError, match="run file"):
        m3.evaluate(cases, f"run:{path}", out=tmp_path / "run")


def test_unknown_ids_are_counted_and_refused_beyond_a_share(cases: m3.Cases, tmp_path: Path) -> None:
    rows = [(case.user_id, item, 1.0) for case in cases for item in case.candidates]
    events: list[m3.Event] = []
    path = run_file(tmp_path / "few.txt", [*rows, ("nobody", "D001", 1.0), (cases[0].user_id, "D999", 1.0)])
    m3.evaluate(cases, f"run:{path}", on_event=events.append)
    assert any(isinstance(e, m3.Note) and "2 lines with unknown ids are left out" in e.text for e in events)
    path = run_file(tmp_path / "many.txt", [(user, f"0{item}", score) for user, item, score in rows])
    with pytest.raises(InputError, match="600 of 600 lines name a user or an item that the data does not"):
        m3.evaluate(cases, f"run:{path}")
    others = [user for user in cases.dataset.histories if user not in {case.user_id for case in cases}]
    path = run_file(tmp_path / "others.txt", [(user, "D001", 1.0) for user in others])
    with pytest.raises(InputError, match="ranks none of the candidates of these cases"):
        m3.evaluate(cases, f"run:{path}")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("u Q0 a 1 2.0\n", "line 1: 5 words; expected 6: user_id Q0 item_id rank score tag"),
        ("u Q0 a 1 2.0 x\nu Q0 b 2 good x\n", "line 2: field 'score': 'good' is not a finite number"),
        ("u Q0 a 1 nan x\n", "line 1: field 'score': 'nan'"),
        ("u Q0 a 1 2.0 x\nu Q0 a 2 1.0 x\n", "line 2: item 'a' of user 'u' is ranked twice"),
        ("", "the file is empty"),
    ],
)
def test_errors_name_the_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "run.txt").write_text(text)
    with pytest.raises(InputError) as refused:
        read_trec_run(tmp_path / "run.txt")
    assert problem in str(refused.value)


def test_ids_with_white_space_stay_one_word(tmp_path: Path) -> None:
    users = [f"ann {n}" for n in range(4)]
    items = [f"item {n}%" for n in range(8)]
    bought = [(user, item, n) for user in users for n, item in enumerate(items[:4])]
    frame = pd.DataFrame(bought, columns=["user_id", "item_id", "timestamp"])
    others = pd.DataFrame({"user_id": "x", "item_id": items, "timestamp": 0})
    shop = m3.Dataset.from_frames(pd.concat([frame, others]), pd.DataFrame({"item_id": items, "title": items}))
    drawn = m3.draw_cases(shop, part="all", negatives=3)
    prior = m3.evaluate(drawn, "popularity", out=tmp_path / "run")
    files = write_trec(tmp_path / "run", tmp_path / "trec")
    assert {len(line.split()) for line in files.run.read_text("utf-8").splitlines()} == {6}
    again = m3.evaluate(drawn, f"run:{files.run}")
    assert {u: row.order for u, row in again.rows.items()} == {u: row.order for u, row in prior.rows.items()}


@given(st.text(min_size=1))
def test_a_written_id_is_one_word_of_its_own(own: str) -> None:
    assert len(f"a {trec_id(own)} b".split()) == 3
    assert trec_id(own) != trec_id(own + " ")


def test_failed_users_are_left_out_and_counted(cases: m3.Cases, tmp_path: Path, cli: CommandLine) -> None:
    class Unsteady:
        name = "unsteady"

        def rank(self, case: m3.Case) -> Ranking:
            if case.user_id == cases[0].user_id:
                raise OSError("down")
            return Ranking(user_id=case.user_id, order=case.candidates)

    m3.evaluate(cases, Unsteady(), out=tmp_path / "run")
    ended = cli("export", "trec", tmp_path / "run", "--out", tmp_path / "trec")
    assert ended.code == 0 and "19 users: " in ended.out
    assert "1 unresolved users are left out" in ended.err
    for name in ("run.txt", "qrels.txt"):
        words = [line.split() for line in (tmp_path / "trec" / name).read_text("utf-8").splitlines()]
        assert {line[0] for line in words} == {case.user_id for case in cases} - {cases[0].user_id}
    ended = cli("export", "trec", tmp_path / "run", "--out", tmp_path / "trec")
    assert ended.code == 2 and "exists: choose another folder" in ended.err
    ended = cli("export", "trec", tmp_path, "--out", tmp_path / "other")
    assert ended.code == 2 and "Traceback" not in ended.err
