"""Explanations: reasons that are checked, and items whose reason fails."""

from __future__ import annotations

import json
import re

import pytest

from programs.explain import Explainer
from programs.mar import Candidate
from tests.support.backends import backends_on
from tests.support.fake_server import Body, Reply, answering, last_user
from tests.support.prompts import text_of
from tests.support.small_shop import SHOPPER


class TestReasons:
    ordered = tuple(Candidate(f"I-{n}", f"trait {n}") for n in range(6))

    def choose(self, unfaithful: set[int], k: int = 2, patience: int = 4) -> tuple[list[str], list[tuple[str, bool]]]:
        def judge(body: Body) -> Reply:
            number = int(re.findall(r"trait (\d)", last_user(body))[-1])
            faithful = "no" if number in unfaithful else "yes"
            return Reply(json.dumps({"faithful": faithful, "why": "because"}))

        with answering(faithful=judge) as server:
            after, rationales = Explainer(backends_on(server)).choose(SHOPPER, self.ordered, k, patience)
        return [c.item_id for c in after], [(r.item_id, r.verdict.faithful) for r in rationales]

    def test_the_first_k_stand_where_all_reasons_hold(self) -> None:
        after, rationales = self.choose(set())
        assert after == ["I-0", "I-1", "I-2", "I-3", "I-4", "I-5"]
        assert rationales == [("I-0", True), ("I-1", True)]

    def test_an_item_whose_reason_fails_makes_room_for_the_next(self) -> None:
        after, rationales = self.choose({0})
        assert after == ["I-1", "I-2", "I-3", "I-4", "I-5", "I-0"]
        assert rationales == [("I-0", False), ("I-1", True), ("I-2", True)]

    @pytest.mark.parametrize(("unfaithful", "first"), [({0, 2, 3}, ["I-1", "I-0"]), ({0, 1, 2, 3}, ["I-0", "I-1"])])
    def test_where_too_few_hold_the_best_of_the_failed_fill_the_list(
        self, unfaithful: set[int], first: list[str]
    ) -> None:
        after, rationales = self.choose(unfaithful)
        assert after[:2] == first
        assert sorted(after) == [c.item_id for c in self.ordered]
        assert len(rationales) == 4, "patience"
        assert {item for item, faithful in rationales if not faithful} == {f"I-{n}" for n in unfaithful}

    def test_the_reason_is_made_from_motivations_and_traits_alone(self) -> None:
        with answering(reason=lambda _: "One\nline.") as server:
            rationale = Explainer(backends_on(server), check=False)(user=SHOPPER, candidate=self.ordered[0])
        assert (rationale.text, rationale.verdict.faithful, len(server.bodies)) == ("One | line.", True, 1)
        assert "I-0" not in text_of(server.bodies)

    @pytest.mark.parametrize(
        ("reason", "why"), [("", "no reason given"), (Reply("}"), "mar: 2 answers could not be parsed")]
    )
    def test_no_reason_is_no_faithful_reason(self, reason: str | Reply, why: str) -> None:
        with answering(reason=lambda _: reason) as server:
            rationale = Explainer(backends_on(server))(user=SHOPPER, candidate=self.ordered[0])
        assert not rationale.verdict.faithful
        assert rationale.verdict.why.startswith(why)
