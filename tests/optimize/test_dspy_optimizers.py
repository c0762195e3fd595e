"""DSPy's optimizers on our objective, roles and budget."""

from __future__ import annotations

import json
import threading
from collections import Counter
from pathlib import Path

import pytest

from mllm3rec.api.compilation import compile_program
from optimize.artifact import PROGRAM, restore_program
from optimize.candidates import CandidateSettings
from optimize.prompts import prompts_of
from programs.lm.ledger import Budget
from programs.lm.response_cache import use_response_cache
from programs.program import PROGRAMS
from programs.runtime.errors import BudgetExceededError, InputError
from tests.support.backends import roles_on
from tests.support.cases import cases_file
from tests.support.compile_setup import compiler, sensitive
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user


@pytest.mark.parametrize("optimizer", ["mipro", "random-search"])
def test_dspy_optimizers_end_with_the_best_so_far(tmp_path: Path, optimizer: str) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        made = compiler(tmp_path / "art", cases, roles_on(server), Budget(calls=130), optimizer=optimizer, trials=20)
        with pytest.raises(BudgetExceededError, match="the best of"):
            made.run()
        assert len(server.bodies) <= 130
    assert restore_program(tmp_path / "art")[1].optimizer == optimizer


def test_a_proposal_that_cannot_be_read_costs_that_proposal_alone(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)

    def respond(body: Body) -> Reply:
        return Reply("I am sorry, I cannot write that.") if body["model"] == "P" else sensitive(body)

    with FakeOpenAI(respond) as server:
        proposer = roles_on(server).with_models(mar=server.model("P")).mar
        made = compiler(tmp_path / "art", cases, roles_on(server), optimizer="mipro", trials=2, proposer=proposer)
        made.run()
        asked = sum(body["model"] == "P" for body in server.bodies)
    assert len(made.proposer.unreadable) == asked > 0
    instructions = restore_program(tmp_path / "art")
    assert instructions[1].optimizer == "mipro"


@pytest.mark.parametrize("optimizer", ["study", "mipro", "gepa", "random-search", "labeled"])
def test_models_of_the_roles_survive_every_optimizer(tmp_path: Path, optimizer: str) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    asked: dict[str, set[str]] = {}
    lock = threading.Lock()

    def respond(body: Body) -> Reply:
        text = json.dumps(body["messages"])
        if body["model"] == "P":
            kind = "proposer"
        elif "`motivations`" in text or "reassessments" in text:
            kind = "mope"
        elif "`traits`" in text:
            kind = "mote"
        else:
            kind = "mar"
        with lock:
            asked.setdefault(kind, set()).add(body["model"])
        return sensitive(body)

    with FakeOpenAI(respond) as server:
        roles = roles_on(server).with_models(mope=server.model("A"), mote=server.model("B"), mar=server.model("C"))
        made = compiler(
            tmp_path / "art",
            cases,
            roles,
            optimizer=optimizer,
            trials=3,
            proposer=roles_on(server).with_models(mar=server.model("P")).mar,
        )
        manifest = made.run()
        program, _ = restore_program(tmp_path / "art", made.parts)
        server.bodies.clear()
        use_response_cache(":memory:")
        program.rank(cases.cases[0].blinded())
        served = Counter(body["model"] for body in server.bodies)
    assert "proposer" in asked or optimizer in ("random-search", "labeled")
    asked.pop("proposer", None)
    assert asked == {"mope": {"A"}, "mote": {"B"}, "mar": {"C"}}
    assert [manifest.roles.of(role).model.split("#")[1] for role in ("mope", "mote", "mar")] == ["A", "B", "C"]
    assert set(served) >= {"A", "C"}
    state = json.loads((tmp_path / "art" / PROGRAM).read_text())
    assert {predictor["lm"] for predictor in state.values()} == {None}


@pytest.mark.parametrize("optimizer", ["mipro", "gepa", "random-search"])
def test_dspy_optimizers_leave_modules_alone_that_are_not_tuned(tmp_path: Path, optimizer: str) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        made = compiler(tmp_path / "art", cases, roles_on(server), optimizer=optimizer, trials=4, modules=("mar",))
        made.run()
        program, _ = restore_program(tmp_path / "art", made.parts)
        before = prompts_of(PROGRAMS["listwise"](made.parts))
        distilled = {body["messages"][0]["content"] for body in server.bodies if "`traits`" in json.dumps(body)}
    after = prompts_of(program)
    assert {name for name in after if after[name] != before[name]} <= {"aligner.rank.predict"}
    assert set(after) == set(before)
    assert len(distilled) == 1, "MOTE was asked in one wording only"


def test_the_seed_decides_what_random_search_bootstraps(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 14)
    asked = []
    with FakeOpenAI(sensitive) as server:
        for seed in (0, 7, 7):
            use_response_cache(":memory:")
            first = len(server.bodies)
            recipe = CandidateSettings(max_demos=2, seed=seed)
            settings = {"optimizer": "random-search", "trials": 4, "modules": ("mar",), "recipe": recipe}
            compiler(tmp_path / str(len(asked)), cases, roles_on(server), **settings).run()
            asked.append(Counter(json.dumps(body["messages"]) for body in server.bodies[first:]))
    assert asked[1] == asked[2]
    assert asked[0] != asked[1]


def test_one_reflection_of_gepa_sees_a_batch_of_users_and_where_their_products_stood(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 8)
    with FakeOpenAI(sensitive) as server:
        proposer = roles_on(server).with_models(mar=server.model("P")).mar
        made = compiler(
            tmp_path / "art",
            cases,
            roles_on(server),
            optimizer="gepa",
            trials=8,
            modules=("mar",),
            proposer=proposer,
            gepa={"reflected_users": 5, "proposals": 2, "frontier": "hybrid", "acceptance": "improvement_or_equal"},
        )
        made.run()
        asked = [last_user(body) for body in server.bodies if body["model"] == "P"]
    assert len(asked) >= 2, "two proposals in one round"
    for text in asked:
        assert "Over 5 shoppers" in text
        assert "where it was shown in the" in text
        assert text.count("In the list that the model read it stood at place") == 5
        assert "This step answered" in text


def test_an_unknown_option_of_gepa_is_refused(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with pytest.raises(InputError, match="temperature"):
        compile_program(cases, out=tmp_path / "art", optimizer="gepa", gepa={"temperature": 3})
