"""The search: its space, pruning, and quality against cost."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluate.experiments.resumable_trials import open_study
from optimize.artifact import SEARCH_FOLDER
from optimize.compiler import STUDY
from optimize.search import PROMPT_SEARCH, Search, SearchPlan, by_merit, pareto_front, should_prune, with_repeated_start
from optimize.space import Configuration, Space
from tests.support.backends import roles_on
from tests.support.cases import cases_file
from tests.support.compile_setup import attempt, compiler, score_of, sensitive, trials_of
from tests.support.fake_server import FakeOpenAI


def test_families_weights_and_backends_are_searched_and_frozen(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        space = Space(
            families=("listwise", "embedding"),
            weights=(0.3, 0.6),
            models={"mar": (server.model(), server.model("other"))},
            temperatures={"mope": (0.0, 0.7)},
        )
        made = compiler(tmp_path / "art", cases, roles_on(server), space=space, trials=8)
        manifest = made.run()
    tried = [Configuration.model_validate(t["configuration"]) for t in trials_of(tmp_path / "art")]
    assert {c.family for c in tried} == {"listwise", "embedding"}
    assert {c.weight for c in tried} == {0.3, 0.6}
    assert len({c.models["mar"] for c in tried}) == 2
    assert {c.temperatures["mope"] for c in tried} == {0.0, 0.7}
    assert manifest.chosen is not None
    assert manifest.roles.mar.model == manifest.chosen.models["mar"]
    assert manifest.roles.mope.temperature == manifest.chosen.temperatures["mope"]


def test_quality_against_cost_keeps_a_front(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        compiler(tmp_path / "art", cases, roles_on(server), pareto=True, trials=5).run()
    study = optuna.load_study(
        study_name="mllm3rec", storage=f"sqlite:///{tmp_path / 'art' / SEARCH_FOLDER / 'study.sqlite'}"
    )
    assert len(study.directions) == 2
    tried = {t["number"]: t for t in trials_of(tmp_path / "art")}
    costs = {number: next(iter(t["cost"].values())) for number, t in tried.items()}
    assert len(set(costs.values())) > 1, "demonstrations cost tokens"
    front = {trial.number for trial in study.best_trials}
    for number, trial in tried.items():
        beaten = any(
            other["score"] >= trial["score"]
            and costs[rival] <= costs[number]
            and (other["score"], costs[rival]) != (trial["score"], costs[number])
            for rival, other in tried.items()
        )
        assert beaten == (number not in front)


def test_a_space_with_one_point_ends_when_it_is_tried(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        manifest = compiler(
            tmp_path / "art",
            cases,
            roles_on(server),
            space=Space(families=("embedding",)),
            modules=("mar",),
            trials=5,
        ).run()
    assert manifest.trials == 1
    assert manifest.verdict.judgement == "not better"


def test_a_new_mote_prompt_is_tried_only_as_often_as_it_pays(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6, negatives=29)
    with FakeOpenAI(sensitive) as server:
        compiler(tmp_path / "art", cases, roles_on(server), trials=6, interactions=0).run()
    changes = [
        (c.demos["mote"], c.wordings["mote"])
        for c in (Configuration.model_validate(t["configuration"]) for t in trials_of(tmp_path / "art"))
    ]
    # Distilling 70 products costs more than the three calls of four shoppers: MOTE may change in the sixth trial.
    assert len(set(changes[:5])) == 1


@pytest.mark.parametrize("workers", [1, 8])
def test_workers_do_not_change_when_a_trial_is_looked_at(workers: int, tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 22)
    space = Space(families=("embedding",))
    with FakeOpenAI(sensitive) as server:
        made = compiler(tmp_path / "art", cases, roles_on(server), space=space, modules=("mar",), trials=1)
        made.workers = workers
        made.run()
    study = open_study(tmp_path / "art" / SEARCH_FOLDER / STUDY, PROMPT_SEARCH, ["maximize"])
    assert list(study.trials[0].intermediate_values) == [5, 10, 15]


def test_a_repeat_of_the_uncompiled_program_takes_its_place() -> None:
    unread = replace(attempt(0, 0.2, 10), scores=(score_of("u", 0.2).model_copy(update={"unreadable": True}),))
    other = Configuration(family="pointwise")
    rival, repeat = replace(attempt(1, 0.45, 10), configuration=other), attempt(2, 0.45, 10)
    for first in (unread, replace(unread, state="FAIL", scores=())):
        found = with_repeated_start([first, rival, repeat])
        assert [(one.number, one.score) for one in found] == [(0, 0.45), (1, 0.45)]
        assert max(found, key=by_merit).configuration == repeat.configuration, "of equals the uncompiled program wins"
        assert with_repeated_start([first, rival]) == [first, rival]
    assert with_repeated_start([attempt(0, 0.2, 10), rival]) == [attempt(0, 0.2, 10), rival]


def test_hopeless_trials_are_stopped_early() -> None:
    assert should_prune([0.1] * 6, [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.9])
    assert not should_prune([0.1] * 4, [0.9] * 9), "too few shoppers to tell"
    assert not should_prune([0.5] * 6, [0.5] * 6)
    assert not should_prune([0.6] * 6, [0.5] * 6)


def test_a_trial_that_could_not_be_read_stops_no_other(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 12)

    def searched(folder: str, readable_best: bool) -> Search:
        with FakeOpenAI(sensitive) as server:
            made = compiler(tmp_path / folder, cases, roles_on(server))
        wrapped = (lambda program: made._scored(program, made.searched), made.searched, made.objective)
        search = Search(tmp_path / f"{folder}.sqlite", SearchPlan(), made.settings.space, made._builder, *wrapped)
        scores = [score_of(f"u{n}", 0.9).model_copy(update={"unreadable": not readable_best}) for n in range(8)]
        values = {"configuration": Configuration(family="listwise").model_dump(mode="json")}
        values["scores"] = [score.model_dump(mode="json") for score in scores]
        search.study.add_trial(optuna.trial.create_trial(value=0.9, user_attrs=values))
        return search

    running = replace(attempt(1, 0, 0, "RUNNING"), scores=tuple(score_of(f"u{n}", 0.1) for n in range(6)))
    assert searched("read", readable_best=True)._should_prune(running)
    assert not searched("unread", readable_best=False)._should_prune(running)


def test_the_front_holds_what_nothing_beats() -> None:
    some = [attempt(0, 0.5, 100), attempt(1, 0.4, 50), attempt(2, 0.45, 120), attempt(3, 0.9, 300, "PRUNED")]
    assert [a.number for a in pareto_front(some, "tokens")] == [1, 0]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=12))
def test_no_attempt_on_the_front_is_beaten(points: list[tuple[int, int]]) -> None:
    some = [attempt(n, score / 10, tokens) for n, (score, tokens) in enumerate(points)]
    front = pareto_front(some, "tokens")
    for one in front:
        assert not any(
            a.score >= one.score
            and a.cost("tokens") <= one.cost("tokens")
            and (a.score > one.score or a.cost("tokens") < one.cost("tokens"))
            for a in some
        )
    best = max(a.score for a in some)
    assert math.isclose(front[-1].score, best)
