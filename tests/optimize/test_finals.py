"""The final round: new users and draws for the best programs, their spread, and the fitted weight."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from mllm3rec.api.compilation import compile_program
from optimize.artifact import SEARCH_FOLDER, restore_program
from optimize.compiler import PLAN
from optimize.finals import Finals, final_round, finalists_of, finals_lines
from optimize.fusion_fit import TRIED_WEIGHTS
from optimize.likelihood import ListScores
from optimize.objective import ObjectiveWeights, UserScore
from optimize.search import Attempt, by_merit
from optimize.search_result import SearchedScores, SearchResult
from optimize.settings import AS_BEFORE, NEWEST_DEFAULTS, CompileSettings, defaults_of_compile
from optimize.space import Space
from programs.gate import GateSignals
from programs.lm.ledger import Budget
from programs.runtime.errors import BudgetExceededError, InputError
from tests.support.backends import roles_on
from tests.support.cases import cases_file
from tests.support.compile_setup import attempt, compiler, priced, score_of, sensitive
from tests.support.fake_server import FakeOpenAI

FINALS = {"finalists": 2, "draws": 3, "final_share": 0.3, "fit_weight": True}


def test_finalists_are_scored_again_and_the_spread_of_one_program_is_said(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 10)
    with FakeOpenAI(sensitive) as server:
        made = compiler(tmp_path / "art", cases, roles_on(server), trials=4, modules=("mar",), **FINALS)
        foreseen = {phase.name: phase.calls for phase in made.rehearse()}
        manifest = made.run()
    finals = manifest.finals
    assert finals is not None
    assert (finals.users, finals.new_users) == (7, 2)
    assert manifest.choosing_users == 7
    assert [len(one.by_draw) for one in finals.finalists] == [3] * len(finals.finalists)
    assert 0 in {one.trial for one in finals.finalists}, "the winner must beat the uncompiled program"
    assert finals.spread is not None
    assert finals.spread > 0, "other labels give this server's answers another order"
    assert any("one and the same program" in step for step in made.watcher.steps)
    assert manifest.trial == finals.finalists[0].trial
    assert manifest.searched["after"] == finals.finalists[0].score
    assert set(manifest.data.searched) == {case.user_id for case in cases.cases[:7]}
    assert 0 < made.ledger.by_phase()["finals"].calls <= foreseen["finals"]
    assert finals.fitted is not None
    assert manifest.weight == finals.fitted.weight
    assert restore_program(tmp_path / "art")[0].fusion.weight == manifest.weight
    page = (tmp_path / "art" / SEARCH_FOLDER / "report.html").read_text("utf-8")
    assert "Final round" in page
    assert "prompt tokens" in page


def test_the_weight_is_fitted_without_a_call(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 8)
    calls = []
    for fit in (False, True):
        with FakeOpenAI(sensitive) as server:
            made = compiler(tmp_path / f"art{fit}", cases, roles_on(server), trials=1, modules=("mar",), fit_weight=fit)
            manifest = made.run()
            calls.append(len(server.bodies))
    assert calls[0] == calls[1]
    assert manifest.finals is not None
    assert manifest.finals.fitted is not None
    if manifest.weight != 0.3:
        assert manifest.verdict.prompts is not None
        assert manifest.verdict.prompts.mean == 0, "the same prompts and the same weight"


def test_a_final_round_has_a_finalist() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        Finals(users=1, new_users=0, finalists=())


def test_who_was_lucky_in_the_search_does_not_win() -> None:
    attempts = [attempt(0, 0.4, 10), attempt(1, 0.9, 10), attempt(2, 0.6, 10), attempt(3, 0.1, 10)]

    def score(one: Attempt, draw: int) -> list[UserScore]:
        return [score_of(f"u{n}", {0: 0.4, 1: 0.3 + draw / 10, 2: 0.6}[one.number]) for n in range(2)]

    assert [one.number for one in finalists_of(attempts, 2)] == [1, 2, 0]
    decision = final_round(finalists_of(attempts, 2), score, 3, ObjectiveWeights(), fit=False)
    assert decision.winner.number == 2
    assert decision.finals.spread == 0.0


def test_scores_of_the_search_are_about_users_that_both_programs_have() -> None:
    whole = Attempt(2, "COMPLETE", attempt(0, 0, 0).configuration, tuple(score_of(f"u{n}", n / 10) for n in range(4)))
    result = SearchResult([], [(whole, {})])
    assert result.searched(replace(whole, number=0, scores=whole.scores[:2])) == SearchedScores(
        {"before": 0.05, "after": 0.05}, 2
    )
    assert result.searched(replace(whole, number=0, state="FAIL", scores=())) == SearchedScores({}, 0)


def test_of_equal_scores_the_shorter_prompt_wins() -> None:
    long, short = (
        Attempt(
            number,
            "COMPLETE",
            attempt(0, 0, 0).configuration,
            (score_of("u", 0.5).model_copy(update={"tokens_in": n}),),
        )
        for number, n in ((1, 900), (2, 300))
    )
    assert max([long, short], key=by_merit).number == 2


def test_a_budget_for_the_search_alone_still_ends_with_a_checked_winner(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 8)
    with FakeOpenAI(sensitive) as server:
        made = compiler(tmp_path / "art", cases, roles_on(server), Budget(calls=200), trials=20, **FINALS)
        with pytest.raises(BudgetExceededError, match="the best of"):
            made.run()
        assert len(server.bodies) <= 200
    manifest = restore_program(tmp_path / "art")[1]
    assert manifest.verdict.judgement
    assert manifest.finals is None and made.final_users
    assert manifest.choosing_users == len(made.searched)


def test_a_budget_that_ends_before_the_final_round_ends_the_compile_as_stopped(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 8)
    many = {"trials": 2, "modules": ("mar",), **FINALS, "draws": 20}
    with FakeOpenAI(sensitive) as server:
        foreseen = {
            phase.name: phase.calls for phase in compiler(tmp_path / "art", cases, roles_on(server), **many).rehearse()
        }
        enough = Budget(calls=foreseen["pools"] + foreseen["search"] + foreseen["held-out"])
        made = compiler(tmp_path / "art", cases, roles_on(server), enough, **many)
        with pytest.raises(BudgetExceededError, match=r"no final round: .* the best of 2 trials is saved"):
            made.run()
        assert restore_program(tmp_path / "art")[1].finals is None
        made.ledger.close()
        assert compiler(tmp_path / "art", cases, roles_on(server), **many).run().finals is not None


def test_the_spread_is_0_where_nothing_is_drawn(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 10)
    space = Space(families=("embedding",))
    settings = {**FINALS, "trials": 1, "modules": ("mar",), "space": space, "fit_weight": False}
    with FakeOpenAI(sensitive) as server:
        finals = compiler(tmp_path / "art", cases, roles_on(server), **settings).run().finals
    assert finals is not None and finals.new_users
    assert finals.spread == 0


def test_a_budget_is_refused_with_a_sum_that_pays_the_final_round_too(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 8)
    sums = []
    with FakeOpenAI(sensitive) as server:
        for settings in ({}, FINALS):
            made = compiler(
                tmp_path / f"art{len(sums)}",
                cases,
                roles_on(server),
                Budget(usd=0.001),
                priced(server.model()),
                **settings,
            )
            with pytest.raises(InputError, match="give at least") as refused:
                made.run()
            sums.append(float(str(refused.value).split("give at least $")[1].split(",")[0]))
        assert server.bodies == []
    assert sums[1] > sums[0]


def test_a_compile_from_before_these_settings_resumes_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLLM3REC_ENCODER", "hashing")
    cases = cases_file(tmp_path / "dev.jsonl", 8)
    plan = tmp_path / "art" / SEARCH_FOLDER / PLAN
    with FakeOpenAI(sensitive) as server:
        options = {"out": tmp_path / "art", "model": server.model(), "trials": 1, "modules": ["mar"], "wordings": 1}
        before = {
            name: AS_BEFORE[name] for name in ("finalists", "draws", "final_share", "fit_weight", "deterministic")
        }
        compile_program(cases, **options, **before, reflections=0)
        old = json.loads(plan.read_text())
        for name in ("gepa", *before):
            del old[name]
        del old["recipe"]["reflections"]
        plan.write_text(json.dumps(old))
        resumed = compile_program(cases, **options)
        assert resumed.manifest is not None
        assert resumed.manifest.finals is None
        with pytest.raises(InputError, match="finalists"):
            compile_program(cases, **options, finalists=2)
    assert CompileSettings.model_validate_json(plan.read_text()).finalists == 0
    assert defaults_of_compile(tmp_path / "new") == NEWEST_DEFAULTS


@pytest.mark.parametrize("weight", [0.3, 0.36])
@pytest.mark.parametrize(("ranks", "gated"), [((2, 4), True), ((3, 3), False), ((1, 1), False)])
def test_a_winner_that_is_worse_than_the_prior_gets_the_prior(
    ranks: tuple[int, int], gated: bool, weight: float
) -> None:
    """It helps three users of ten by a rank and harms the others; its scores are the prior's: no weight is likelier.

    The second weight is not among those that are tried.
    """

    def user(number: int) -> UserScore:
        rank = ranks[0] if number % 10 < 3 else ranks[1]
        signals = GateSignals(history=3, cold=0, margin=(number * 7 % 40) / 40)
        tried = tuple(3 if weight == 0 else rank for weight in TRIED_WEIGHTS)
        same = ListScores(mar=(1.0, 0.0, -1.0), prior=(1.0, 0.0, -1.0), target=number % 3)
        more = {"ranks": tried, "signals": signals, "lists": same}
        return score_of(f"u{number}", 1 / np.log2(1 + rank)).model_copy(update=more)

    users = [user(number) for number in range(40)]
    own = attempt(0, 0, 0).configuration.model_copy(update={"weight": weight})
    first = Attempt(0, "COMPLETE", own, tuple(users))
    decision = final_round([first], lambda one, draw: one.scores, 1, ObjectiveWeights(ndcg=1, mar=0, hit=0), fit=True)
    gate = decision.winner.configuration.gate
    assert (gate is not None) == gated
    assert gate is None or gate.weights == (0.0,)
    said = finals_lines(decision.finals, gate)
    assert any(line.startswith("gate: targets likelier than by the prior alone") for line in said)
    assert ("the winner has no gate: none is clearly above one weight" in said) != gated
