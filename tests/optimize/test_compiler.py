"""Compiling against a fake server, from cases to an artifact; the same compile given again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import mllm3rec as m3
from optimize.artifact import SEARCH_FOLDER, restore_program
from optimize.candidates import ORIGINAL, Candidates
from optimize.compiler import PLAN, POOLS
from optimize.freezing import REPORT
from programs.chat_rec import SHORTLIST
from programs.runtime.errors import InputError
from tests.optimize.conftest import Finished
from tests.support.backends import roles_on
from tests.support.cases import cases_file
from tests.support.compile_setup import compiler, sensitive, trials_of
from tests.support.fake_server import FakeOpenAI


def test_the_artifact_is_a_program_that_ranks(finished: Finished, tmp_path: Path) -> None:
    directory = finished.copy(tmp_path)
    program, loaded = restore_program(directory, compiler(directory, finished.cases, finished.roles).parts)
    case = finished.cases.cases[-1]
    assert loaded == finished.manifest
    assert sorted(program.rank(case.blinded()).order) == sorted(case.candidates)


def test_the_manifest_says_who_was_searched_and_what_was_spent(finished: Finished) -> None:
    manifest = finished.manifest
    assert len(manifest.data.searched) == 5
    assert len(manifest.data.held_out) == 3
    assert not {*manifest.data.searched} & {*manifest.data.held_out}
    assert set(manifest.spent) == {"pools", "search", "held-out"}
    assert manifest.spent["pools"].calls > 0


def test_trials_begin_with_the_uncompiled_program_and_the_best_one_wins(finished: Finished) -> None:
    trials = trials_of(finished.made.directory)
    complete = [trial for trial in trials if trial["state"] == "COMPLETE"]
    assert len(trials) == finished.manifest.trials == 4
    assert all(len(trial["scores"]) == 5 for trial in complete)
    assert trials[0]["configuration"]["demos"]["mope"] == ORIGINAL
    assert len({json.dumps(trial["configuration"], sort_keys=True) for trial in trials}) == 4
    best = max(complete, key=lambda trial: trial["score"])
    assert finished.manifest.trial == best["number"]


def test_the_report_shows_the_search_and_loads_nothing(finished: Finished) -> None:
    page = (finished.made.directory / SEARCH_FOLDER / REPORT).read_text()
    assert "Score by trial" in page
    assert "<script src=" not in page


def test_only_the_named_modules_are_tuned(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        compiler(tmp_path / "art", cases, roles_on(server), modules=("mar",), trials=2).run()
    pools = Candidates.load(tmp_path / "art" / SEARCH_FOLDER / POOLS)
    assert [len(pools.modules[m].demos) + len(pools.modules[m].wordings) for m in ("mope", "mote")] == [2, 2]
    assert len(pools.modules["listwise"].wordings) > 1


def test_cases_of_test_shoppers_are_refused(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "test.jsonl", 6, part="test")
    with FakeOpenAI() as server, pytest.raises(InputError, match="--part dev"):
        compiler(tmp_path / "art", cases, roles_on(server))


def test_another_compile_in_the_directory_is_refused_naming_what_differs(finished: Finished, tmp_path: Path) -> None:
    directory = finished.copy(tmp_path)
    with pytest.raises(InputError, match=r"other .*seed"):
        compiler(directory, finished.cases, finished.roles, seed=7).run()


def test_a_finished_compile_given_again_leaves_the_artifact_as_it_is(finished: Finished, tmp_path: Path) -> None:
    directory = finished.copy(tmp_path)
    asked = len(finished.server.bodies)
    again = compiler(directory, finished.cases, finished.roles).run()
    assert len(finished.server.bodies) == asked
    assert again == finished.manifest == restore_program(directory)[1]


def test_more_trials_go_on_from_those_there_are(finished: Finished, tmp_path: Path) -> None:
    directory = finished.copy(tmp_path)
    first = trials_of(directory)
    more = compiler(directory, finished.cases, finished.roles, trials=6).run()
    assert trials_of(directory)[:4] == first
    assert len(trials_of(directory)) == more.trials == 6
    assert more.sha256 != finished.manifest.sha256


def test_what_a_killed_write_left_is_swept_away(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    search = tmp_path / "art" / SEARCH_FOLDER
    script = "import os, pathlib, sys; from programs.runtime import atomic\n"
    script += "os.fsync = lambda _: os.kill(os.getpid(), 9)\n"
    script += "atomic.write_atomically(pathlib.Path(sys.argv[1]), b'half')"
    subprocess.run([sys.executable, "-c", script, str(search / PLAN)], check=False)  # noqa: S603
    assert len(list(search.iterdir())) == 1
    with FakeOpenAI(sensitive) as server:
        compiler(tmp_path / "art", cases, roles_on(server), trials=1).run()
    restore_program(tmp_path / "art")


@pytest.mark.usefixtures("hashing")
@pytest.mark.parametrize("by_name", [True, False])
def test_a_reranking_program_is_compiled_as_it_is_evaluated(by_name: bool, tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 5, negatives=29)
    small = {"trials": 1, "modules": ["mar"], "wordings": 0, "demo_sets": 0, "reflections": 0, "finalists": 0}
    with FakeOpenAI(sensitive) as server:
        models = {"model": server.model()}
        given = "chat-rec" if by_name else m3.program("chat-rec", cases.dataset, **models)
        made = m3.compile_program(cases, given, out=tmp_path / "art", **small, **(models if by_name else {})).manifest
    assert made is not None
    assert (made.weight, made.head, made.gate, made.finals) == (1.0, SHORTLIST, None, None)


def test_a_reranking_program_is_not_searched_together_with_others(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 5)
    with pytest.raises(InputError, match=r"'chat-rec' .* cannot be searched together with 'listwise'"):
        m3.compile_program(cases, ["listwise", "chat-rec"], out=tmp_path / "art")
