"""Scores of programs, and ways in which a program must not win."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluate.data.demo.store import demo_items
from optimize.objective import Objective
from optimize.scoring import ScoredProgram, next_users, score_cases
from optimize.space import Space
from programs.lm.response_cache import use_response_cache
from programs.program import PROGRAMS
from tests.support.backends import roles_on
from tests.support.cases import cases_file
from tests.support.compile_setup import compiler, sensitive
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible


def test_a_family_without_profiles_does_not_win_by_having_none(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        made = compiler(tmp_path / "art", cases, roles_on(server), space=Space(families=("listwise", "llm-only")))
        case = next(one for one in made.searched if len(one.history) > 1)
        scores = {
            family: score_cases(
                ScoredProgram(PROGRAMS[family](made.parts), next_users(made.searched), made.ledger, 2),
                [case],
                made.objective,
            )[0]
            for family in ("listwise", "llm-only")
        }
    assert scores["listwise"].coherence is not None
    assert scores["llm-only"].coherence == 0.0
    none = scores["llm-only"]
    assert none.score == pytest.approx(0.4 * none.ndcg + 0.3 * none.mar + 0.1 * none.hit)


def test_an_engine_that_always_answers_the_same_scores_lower_than_an_honest_one(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 20)
    titles = {entry.item.title: entry.serves for entry in demo_items()}

    def served(text: str) -> list[str]:
        return list(dict.fromkeys(name for title, names in titles.items() if title in text for name in names))

    def drafts(names: list[str]) -> Reply:
        more = {"description": "wants that", "strength": "strong", "evidence": [1]}
        return Reply(json.dumps({"motivations": [{"dimension": name, **more} for name in names]}))

    def engine(body: Body, motivations: Callable[[str], list[str]]) -> Reply:
        """Knows what every product is bought for, and ranks by what it said of shopper and product."""
        everything, shown = json.dumps(body["messages"]), body["messages"][-1]["content"]
        if "`motivations`" in everything:
            return drafts(motivations(shown)[:4])
        if "`traits`" in everything:
            return Reply(json.dumps({"traits": [f"good for {name}" for name in served(shown)] or ["plain"]}))
        if "ranking" in everything:
            wanted = re.findall(r"^- (\w+) ", shown, re.MULTILINE)
            products = re.findall(r"^(\d\d): (.*)$", shown, re.MULTILINE)
            fit = {int(label): sum(f"for {name}" in text for name in wanted) for label, text in products}
            return Reply(json.dumps({"ranking": sorted(fit, key=lambda label: -fit[label])}))
        return sensible(body)

    engines: dict[str, Callable[[Body], Reply]] = {
        "lazy": lambda body: engine(body, lambda shown: ["value", "convenience"]),
        "honest": lambda body: engine(body, served),
    }
    means = {}
    for name, respond in engines.items():
        use_response_cache(":memory:")
        with FakeOpenAI(respond) as server:
            made = compiler(tmp_path / name, cases, roles_on(server))
            program = PROGRAMS["listwise"](made.parts)
            judged = ScoredProgram(program, next_users(cases.cases), made.ledger, interactions=3)
            found = score_cases(judged, cases.cases, Objective())
            means[name] = {
                "consistency": sum(s.consistency or 0 for s in found) / len(found),
                "coherence": sum(s.coherence or 0 for s in found) / len(found),
                "score": sum(s.score for s in found) / len(found),
            }
    assert means["lazy"]["consistency"] == 1.0, "eq. 5 alone is fooled"
    assert means["lazy"]["coherence"] == 0.0
    assert means["honest"]["coherence"] > 0
    assert means["honest"]["score"] > means["lazy"]["score"]


def test_the_ring_gives_everybody_other_neighbours(tmp_path: Path) -> None:
    cases = cases_file(tmp_path / "dev.jsonl", 4).cases
    neighbours = next_users(cases)
    assert [c.user_id for c in neighbours[cases[3].user_id]] == [cases[0].user_id, cases[1].user_id]
    assert next_users(cases[:1]) == {cases[0].user_id: []}
