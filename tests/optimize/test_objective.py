"""The objective: hand-computed scores, and the ways in which it must not be fooled."""

from __future__ import annotations

import math
from typing import Any

import dspy
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from optimize.dspy_optimizers import ScoreRecorder
from optimize.feedback import batch_feedback
from optimize.objective import Objective, ObjectiveWeights, UserScore
from signatures.rows import Case, Ranking, Status, Usage
from signatures.types import Profile, Traits
from tests.support.profiles import profile_of

CASE = Case(user_id="u", history=(), candidates=("a", "b", "c", "d"), target="c")


def ranking(order: str, mar: list[float], **more: Any) -> Ranking:
    return Ranking(user_id="u", order=tuple(order), scores={"mar": mar}, **more)


class TestScore:
    def test_parts_by_hand(self) -> None:
        weights = ObjectiveWeights(ndcg=1, mar=2, hit=1, coherence=0)
        found = Objective(weights).score(CASE, ranking("cabd", [0.0, 0.9, 0.5, 0.1]))
        assert (found.rank, found.mar_rank) == (1, 2)
        assert (found.ndcg, found.hit) == (1.0, 1.0)
        assert found.mar == pytest.approx(1 / math.log2(3))
        assert found.score == pytest.approx((1 + 2 / math.log2(3) + 1) / 4)

    def test_a_part_that_cannot_be_computed_leaves_its_weight_to_the_others(self) -> None:
        found = Objective(ObjectiveWeights(ndcg=1, mar=0, hit=0, coherence=9)).score(
            CASE, ranking("abcd", [0, 0, 1, 0])
        )
        assert found.coherence is None
        assert found.score == found.ndcg == pytest.approx(1 / 2)

    @pytest.mark.parametrize(
        ("mar", "status", "accepted"),
        [
            ([0, 1, 2, 3], Status.OK, True),
            ([None, None, 2, None], Status.OK, True),
            ([None, 4, 2, 3], Status.OK, True),
            ([None, None, None, None], Status.OK, False),
            ([2, 3, None, 4], Status.OK, False),
            ([0, 1, 2, 3], Status.UNPARSABLE, False),
            ([3, 3, 3, None], Status.OK, False),
        ],
        ids=[
            "named first",
            "alone named",
            "named last",
            "nobody named",
            "not named",
            "not readable",
            "all rated alike",
        ],
    )
    def test_demos_are_made_of_answers_that_name_the_target(
        self, mar: list[float | None], status: Status, accepted: bool
    ) -> None:
        # The target is the third candidate; with four candidates any rank is among the first five.
        row = ranking("abcd", [-1.0 if score is None else score for score in mar]).model_copy(update={"status": status})
        assert Objective().score(CASE, row).mar_rank <= 5
        assert Objective().accepts(CASE, row, mar) is accepted

    def test_ties_count_against_the_target_and_so_do_labels_of_nobody(self) -> None:
        case = Case(user_id="u", history=(), candidates=tuple("abcdefgh"), target="a")
        row = Ranking(user_id="u", order=tuple("abcdefgh"))
        tied: list[float | None] = [5, 5, 5, 5, 5, 5, 1, 1]
        assert not Objective().accepts(case, row, tied), (
            "six share the first place: luck makes it one of the first five"
        )
        assert Objective().accepts(case, row, [5, 5, 5, 5, 5, 4, 1, 1])
        named: list[float | None] = [7, *[None] * 7]
        assert Objective().accepts(case, row, named)
        # `[2, 5, 1, 47]` for two-digit labels, 47 being the target: three labels name nobody.
        assert not Objective().accepts(case, row.model_copy(update={"dropped": 3}), named)

    def test_consistency_is_equation_5_and_coherence_takes_strangers_off(self) -> None:
        own = [profile_of("value", "learning"), profile_of("value")]
        strangers = [profile_of("value"), profile_of("identity")]
        found = Objective().score(CASE, ranking("abcd", [0, 0, 1, 0]), own, strangers)
        # Similarities: 1/2 between the two, 1 with themselves; to strangers 1/2, 0, 1, 0.
        assert found.consistency == pytest.approx((1 + 1 + 1 / 2 + 1 / 2) / 4)
        assert found.coherence == pytest.approx(1 / 2 - (1 / 2 + 0 + 1 + 0) / 4)

    @pytest.mark.parametrize("constant", [profile_of("value"), profile_of()], ids=["always the same", "always empty"])
    def test_constant_profiles_have_no_coherence_however_consistent_they_are(self, constant: Profile) -> None:
        objective = Objective()
        lazy = objective.score(CASE, ranking("cabd", [0, 0, 1, 0]), [constant] * 3, [constant] * 4)
        honest = objective.score(
            CASE,
            ranking("cabd", [0, 0, 1, 0]),
            [profile_of("value", "learning"), profile_of("value")],
            [profile_of("identity")],
        )
        assert lazy.coherence == pytest.approx(0.0)
        assert honest.score > lazy.score

    @given(
        st.permutations("abcd"),
        st.lists(st.floats(-1, 1), min_size=4, max_size=4),
        st.lists(st.sampled_from(["value", "learning", "identity"]), max_size=3),
    )
    def test_a_score_is_at_most_1_and_a_better_rank_never_lowers_it(
        self, order: list[str], mar: list[float], own: list[str]
    ) -> None:
        profiles = [profile_of(name) for name in own]
        objective = Objective()
        found = objective.score(CASE, ranking("".join(order), mar), profiles, [profile_of("value")])
        best = objective.score(
            CASE, ranking("c" + "".join(sorted(set(order) - {"c"})), mar), profiles, [profile_of("value")]
        )
        assert -1 <= found.score <= best.score <= 1 + 1e-12

    def test_weights_must_weigh_something(self) -> None:
        with pytest.raises(ValidationError, match="above 0"):
            ObjectiveWeights(ndcg=0, mar=0, hit=0, coherence=0)

    def test_a_case_without_target_cannot_be_scored(self) -> None:
        with pytest.raises(ValueError, match="no target"):
            Objective().score(CASE.blinded(), ranking("abcd", [0, 0, 1, 0]))


class TestMetric:
    def answer(self, order: str, mar: list[float]) -> dspy.Prediction:
        return dspy.Prediction(
            ranking=ranking(order, mar),
            mar=[None if score == -1 else score for score in mar],
            shown=list(range(1, len(mar) + 1)),
            ranks=(),
            own=[],
            others=[],
            expected=0,
            spent=Usage(calls=3, tokens_in=7),
        )

    def test_scores_and_explains_for_an_optimizer(self) -> None:
        gold = dspy.Example(case=CASE).with_inputs("case")
        found = Objective().metric(gold, self.answer("abcd", [0, 0, 1, 0]))
        assert found.score == Objective().score(CASE, ranking("abcd", [0, 0, 1, 0])).score
        assert "ranked 3 of 4" in found.feedback
        named = Objective().metric(gold, self.answer("abcd", [0, 0, 1, 0]), [], "program.shopper", [])
        assert named.score == found.score

    def test_decides_by_mar_alone_whether_a_run_may_be_shown(self) -> None:
        wide = Case(user_id="u", history=(), candidates=tuple("abcdefgh"), target="a")
        gold = dspy.Example(case=wide).with_inputs("case")
        good = self.answer("hgfedcba", [1.0, *[0.0] * 7])
        bad = self.answer("abcdefgh", [-1.0, *[float(n) for n in range(7)]])
        assert Objective().metric(gold, good, trace=[]) is True
        assert Objective().metric(gold, bad, trace=[]) is False

    def test_feedback_on_a_score_is_not_another_score(self) -> None:
        told: list[UserScore] = []
        recorder = ScoreRecorder(Objective(), {}, told.append)
        gold = dspy.Example(case=CASE).with_inputs("case")
        pred = self.answer("abcd", [0, 0, 1, 0])
        pred.prompts = {}
        recorder.metric(gold, pred)
        recorder.metric(gold, pred, [], "program.shopper", [])
        assert len(told) == 1 and "ranked 3 of 4" in next(iter(recorder.outcomes))

    def test_costs_of_the_ranking_come_along(self) -> None:
        found = Objective().score_prediction(CASE, self.answer("abcd", [0, 0, 1, 0]))
        assert (found.calls, found.tokens, found.tokens_in, found.usd) == (3, 7, 7, None)


def test_feedback_names_what_the_profile_stresses_and_what_the_traits_speak_of() -> None:
    row = ranking(
        "abdc",
        [0.9, 0.1, 0.2, 0.3],
        profile=profile_of("value"),
        traits=[Traits(item_id="c", phrases=("lasts for years",)), Traits(item_id="a", phrases=("cheap thrills",))],
    )
    prediction = dspy.Prediction(ranking=row, mar=[0.9, 0.1, 0.2, 0.3], shown=[2, 4, 1, 3])
    outcome = Objective().outcome(CASE, prediction, Objective().score(CASE, row))
    text = batch_feedback([outcome, outcome])
    assert "Over 2 shoppers: by motivations and traits alone the chosen product is first for 0" in text
    assert "where it was shown in the first third of the list: 3.0 (2 shoppers)" in text
    assert "stood at place 1 of 4" in text
    assert "traits, from place 2: cheap thrills" in text
    assert "ranked 4 of 4" in text
    assert "value (wants value)" in text
    assert "lasts for years" in text
    assert "cheap thrills" in text
