"""A compile whose server fails: failed trials are not zeros, and are tried again."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path

import pytest

from optimize.artifact import MANIFEST, SEARCH_FOLDER
from optimize.compiler import POOLS, Compiler
from programs.runtime.errors import InputError
from tests.support.backends import roles_on
from tests.support.cases import cases_file
from tests.support.compile_setup import compiler, sensitive, trials_of
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user


def test_a_trial_whose_server_fails_is_failed_and_not_a_zero(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    broken = threading.Event()

    def respond(body: Body) -> Reply:
        if broken.is_set():
            return Reply("gone", status=400)
        return sensitive(body)

    with FakeOpenAI(respond) as server:
        made = compiler(tmp_path / "art", cases, roles_on(server), trials=1)
        made.run()
        broken.set()
        with pytest.raises(InputError, match="3 trials in a row failed"):
            compiler(tmp_path / "art", cases, roles_on(server), trials=4).run()
        broken.clear()
        manifest = compiler(tmp_path / "art", cases, roles_on(server), trials=4).run()
    states = [t["state"] for t in trials_of(tmp_path / "art")]
    assert states[:4] == ["COMPLETE", "FAIL", "FAIL", "FAIL"]
    assert manifest.trials == 4
    assert all(t["score"] is None for t in trials_of(tmp_path / "art") if t["state"] == "FAIL")


def test_a_failure_under_a_dspy_optimizer_ends_it_instead_of_scoring_zero(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    answered = itertools.count()

    def respond(body: Body) -> Reply:
        return sensitive(body) if next(answered) < 120 else Reply("gone", status=400)

    with FakeOpenAI(respond) as server:
        made = compiler(tmp_path / "art", cases, roles_on(server), optimizer="random-search", trials=5)
        with pytest.raises(InputError, match=r"gone.*run the same command to resume"):
            made.run()
        assert len(made.watcher.scores) > 1, "the optimizer was at work"
    assert not (tmp_path / "art" / MANIFEST).exists()


@pytest.mark.parametrize("readable", [0, 1])
def test_nothing_is_frozen_where_answers_cannot_be_read(tmp_path: Path, readable: int) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    shoppers: list[str] = []

    def respond(body: Body) -> Reply:
        if "`ranking`" not in body["messages"][0]["content"]:
            return sensitive(body)
        shopper = last_user(body).partition("products")[0]
        if shopper not in shoppers:
            shoppers.append(shopper)
        return sensitive(body) if shoppers.index(shopper) < readable else Reply("I am sorry.")

    with FakeOpenAI(respond) as server:
        made = compiler(tmp_path / "art", cases, roles_on(server), trials=1, modules=("mar",))
        with pytest.raises(InputError, match="no answer of the models could be read for"):
            made.run()
    assert not (tmp_path / "art" / MANIFEST).exists()
    assert (tmp_path / "art" / SEARCH_FOLDER / POOLS).exists() == bool(readable)


def test_what_failed_with_its_server_is_tried_again(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    broken = threading.Event()
    with FakeOpenAI(lambda body: Reply("gone", status=400) if broken.is_set() else sensitive(body)) as server:

        def made(trials: int) -> Compiler:
            return compiler(tmp_path / "art", cases, roles_on(server), modules=("mar",), trials=trials)

        made(1).run()
        broken.set()
        with pytest.raises(InputError, match="3 trials in a row failed"):
            made(5).run()
        broken.clear()
        made(40).run()
    tried = [(json.dumps(t["configuration"], sort_keys=True), t["state"]) for t in trials_of(tmp_path / "art")]
    assert {where for where, state in tried if state == "FAIL"} < {where for where, state in tried if state != "FAIL"}


def test_a_winner_that_held_out_users_cannot_read_gives_way_to_the_next_best(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 8)
    compilers: list[Compiler] = []
    originals: list[str] = []

    def respond(body: Body) -> Reply:
        if "`ranking`" not in body["messages"][0]["content"]:
            return sensitive(body)
        before_it = json.dumps(body["messages"][:-1])
        originals.append(before_it)
        held_out = compilers[0].ledger.phase == "held-out"
        return Reply("I am sorry.") if held_out and before_it != originals[0] else sensitive(body)

    with FakeOpenAI(respond) as server:
        settings = {"trials": 4, "modules": ("mar",), "fit_weight": True}
        compilers.append(compiler(tmp_path / "art", cases, roles_on(server), **settings))
        manifest = compilers[0].run()
    assert any("the next best one" in step for step in compilers[0].watcher.steps)
    assert any("cross-validated" in step for step in compilers[0].watcher.steps)
    assert manifest.trial == 0
    assert manifest.finals is not None
    assert manifest.finals.fitted is manifest.finals.gate is None, "they belong to the program that gave way"


def test_unreadable_trials_are_made_again_in_the_same_folder(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    sorry = threading.Event()

    def respond(body: Body) -> Reply:
        ranking = "`ranking`" in body["messages"][0]["content"]
        return Reply("I am sorry.") if sorry.is_set() and ranking else sensitive(body)

    def made(retry: bool = False) -> Compiler:
        one = compiler(tmp_path / "art", cases, roles_on(server), trials=2, modules=("mar",))
        one.parts.backends.retry_unparsable = retry
        return one

    with FakeOpenAI(respond) as server:
        first = made()
        first._candidates()  # They could be read; from now on nothing can.
        sorry.set()
        with pytest.raises(InputError, match="the same command with --retry-unparsable"):
            first.run()
        sorry.clear()
        with pytest.raises(InputError, match="the same command with --retry-unparsable"):
            made().run()
        manifest = made(retry=True).run()
        asked = len(server.bodies)
        assert made(retry=True).run() == manifest
        assert len(server.bodies) == asked
    winner = next(trial for trial in trials_of(tmp_path / "art") if trial["number"] == manifest.trial)
    assert not any(score["unreadable"] for score in winner["scores"])
    assert not any(score["unreadable"] for score in trials_of(tmp_path / "art")[0]["scores"])
    assert manifest.trials == 3, "the repeat of the uncompiled program stands in its place"
