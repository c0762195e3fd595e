"""MAR: ratings, lists and embeddings, and what is made of a wrong answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from programs.mar import Candidate, Embedding, Listwise, Pointwise, UserView
from programs.program import PROGRAMS
from signatures.rows import Status
from signatures.types import Motivation, Profile
from tests.support.backends import backends_on
from tests.support.encoders import LetterEncoder
from tests.support.fake_server import Body, FakeOpenAI, Reply, answering, last_user, sensible
from tests.support.prompts import labels_shown, text_of
from tests.support.small_shop import CANDIDATES, CASE, SHOPPER, parts_on


class TestPointwise:
    candidates = (Candidate("I-1", "keeps warm"), Candidate("I-2", "makes noise"))

    @staticmethod
    def logprobs(token: str, **top: float) -> list[dict[str, Any]]:
        return [{"token": token, "logprob": -0.1, "top_logprobs": [{"token": t, "logprob": p} for t, p in top.items()]}]

    def test_the_score_is_the_expected_rating(self) -> None:
        def rate(body: Body) -> Reply:
            other = -1.0 if "warm" in last_user(body) else -2.0
            return Reply("4", logprobs=self.logprobs("4", **{"4": -0.5, "5": other}))

        with FakeOpenAI(rate) as server:
            result = Pointwise(backends_on(server))(user=SHOPPER, candidates=self.candidates, seed=0)
        first, second = result.alignments
        # 4 + e^-1 / (e^-1 + e^-.5) = 4 + 1 / (1 + e^.5), and 4 + 1 / (1 + e^1.5): the same digit, no tie.
        assert (first.score, second.score) == pytest.approx((4.377541, 4.182426), abs=1e-6)
        assert {first.source, second.source} == {"logprobs"}
        assert (result.appended, result.dropped, result.unparsable) == (0, 0, 0)

    def test_without_probabilities_the_digit_counts(self) -> None:
        with FakeOpenAI(lambda body: Reply("4" if "warm" in last_user(body) else "2")) as server:
            result = Pointwise(backends_on(server))(user=SHOPPER, candidates=self.candidates, seed=0)
        assert [(a.item_id, a.score, a.source) for a in result.alignments] == [
            ("I-1", 4.0, "integer"),
            ("I-2", 2.0, "integer"),
        ]

    def test_one_candidate_a_call_the_shopper_before_the_product(self, server: FakeOpenAI) -> None:
        Pointwise(backends_on(server))(user=SHOPPER, candidates=self.candidates, seed=0)
        assert len(server.bodies) == 2
        first, second = (last_user(body) for body in server.bodies)
        common = first[: first.index("keeps warm")]
        assert SHOPPER.text in common
        assert second.startswith(common)
        assert server.bodies[0]["messages"][:-1] == server.bodies[1]["messages"][:-1]

    def test_a_candidate_without_a_rating_has_no_score(self) -> None:
        with FakeOpenAI(lambda body: Reply("3" if "warm" in last_user(body) else "lovely")) as server:
            result = Pointwise(backends_on(server))(user=SHOPPER, candidates=self.candidates, seed=0)
        assert [a is None for a in result.alignments] == [False, True]
        assert (result.appended, result.unparsable) == (1, 2)

    def test_the_row_says_how_scores_came_about(self, server: FakeOpenAI) -> None:
        assert PROGRAMS["pointwise"](parts_on(server)).rank(CASE).score_source == "logprobs"
        with FakeOpenAI(lambda b: Reply("3") if "Rating:" in last_user(b) else sensible(b)) as silent:
            assert PROGRAMS["pointwise"](parts_on(silent)).rank(CASE).score_source == "integer"


class TestListwise:
    candidates = tuple(Candidate(f"I-{n}", f"trait {n}") for n in range(4))

    def align(self, ranking: Callable[[dict[str, int]], list[int]], seed: int = 0) -> Any:
        with answering(ranking=lambda body: ranking(labels_shown(body))) as server:
            return Listwise(backends_on(server))(user=SHOPPER, candidates=self.candidates, seed=seed)

    def test_the_score_is_the_number_of_candidates_below(self) -> None:
        result = self.align(lambda label: [label[f"trait {n}"] for n in (2, 0, 3, 1)])
        assert [(a.item_id, a.score, a.source) for a in result.alignments] == [
            ("I-0", 2.0, "rank"),
            ("I-1", 0.0, "rank"),
            ("I-2", 3.0, "rank"),
            ("I-3", 1.0, "rank"),
        ]
        assert (result.appended, result.dropped) == (0, 0)

    def test_unknown_repeated_and_missing_labels_are_counted(self) -> None:
        def ranking(label: dict[str, int]) -> list[int]:
            unknown = next(n for n in range(10, 100) if n not in label.values())
            return [label["trait 1"], unknown, label["trait 1"], -1, 0, 10**12, label["trait 3"]]

        result = self.align(ranking)
        assert [a and a.score for a in result.alignments] == [None, 3.0, None, 2.0]
        assert (result.appended, result.dropped) == (2, 5)

    def test_labels_and_order_differ_between_users_and_tell_nothing(self) -> None:
        seen = []
        for seed in range(6):
            with FakeOpenAI() as server:
                Listwise(backends_on(server))(user=SHOPPER, candidates=self.candidates, seed=seed)
            seen.append(labels_shown(server.bodies[0]))
            assert sorted(seen[-1]) == [c.text for c in self.candidates]
            assert all(10 <= label <= 99 for label in seen[-1].values())
            assert "I-" not in text_of(server.bodies)
        assert len({tuple(label.values()) for label in seen}) == 6
        assert len({tuple(label) for label in seen}) > 1
        assert len({tuple(np.argsort([label[c.text] for c in self.candidates])) for label in seen}) > 1

    def test_a_seed_draws_the_same_list_again(self, server: FakeOpenAI) -> None:
        for _ in range(2):
            Listwise(backends_on(server))(user=SHOPPER, candidates=self.candidates, seed=7)
        assert len(server.bodies) == 1

    def test_a_list_holds_ninety(self, server: FakeOpenAI) -> None:
        listwise = Listwise(backends_on(server))
        many = [Candidate(f"I-{n}", f"trait {n}") for n in range(91)]
        with pytest.raises(ValueError, match="91 candidates: a list holds at most 90"):
            listwise(user=SHOPPER, candidates=many, seed=0)
        assert server.bodies == []
        result = listwise(user=SHOPPER, candidates=many[:90], seed=0)
        assert sorted(a.score for a in result.alignments) == list(range(90))

    def test_an_unreadable_answer_leaves_all_out(self) -> None:
        with answering(ranking=lambda _: Reply("all of them!")) as server:
            result = Listwise(backends_on(server))(user=SHOPPER, candidates=self.candidates, seed=0)
        assert result.alignments == [None] * 4
        assert (result.appended, result.unparsable) == (4, 2)

    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        answer=st.lists(st.one_of(st.integers(), st.integers(0, 120), st.sampled_from("abcd")), max_size=12),
    )
    def test_whatever_the_model_writes_the_order_is_a_permutation(
        self, mutable_server: MutableServer, answer: list[int | str]
    ) -> None:
        def respond(body: Body) -> Reply:
            label = dict(zip("abcd", labels_shown(body).values(), strict=True))  # a letter stands for a true label
            return Reply(json.dumps({"ranking": [label.get(str(written), written) for written in answer]}))

        mutable_server.rule = respond
        mutable_server.round += 1
        case = CASE.model_copy(update={"user_id": f"user {mutable_server.round}"})
        ranked = mutable_server.program.rank(case)
        assert sorted(ranked.order) == sorted(CANDIDATES)
        assert 0 <= ranked.appended <= 4 - len(set(answer) & set("abcd"))
        assert ranked.dropped == len(answer) - (4 - ranked.appended)
        assert ranked.status is (Status.UNPARSABLE if ranked.appended == 4 else Status.OK)


class MutableServer:
    """One server for all the examples of a property, with a rule that each of them sets."""

    def __init__(self) -> None:
        self.rule: Callable[[Body], Reply] = sensible
        self.round = 0
        self.server = FakeOpenAI(lambda b: self.rule(b) if "JSON: ranking" in last_user(b) else sensible(b))
        self.program = PROGRAMS["without-reflection"](parts_on(self.server))


@pytest.fixture
def mutable_server() -> Any:
    mutable = MutableServer()
    with mutable.server:
        yield mutable


class TestEmbedding:
    def test_by_hand(self) -> None:
        profile = Profile(
            motivations=(
                Motivation(dimension="value", description="a", strength="strong", evidence=(1,)),
                Motivation(dimension="learning", description="ab", strength="weak", evidence=(1,)),
            )
        )
        candidates = [Candidate("I-1", "-", ("a", "c")), Candidate("I-2", "-", ("b",)), Candidate("I-3", "abb")]
        align = Embedding(LetterEncoder())
        result = align(user=UserView("-", profile), candidates=candidates, seed=0)
        # Best cosine per motivation, weighted 3:1. I-1: (3 * 1 + 1/sqrt 2) / 4. I-2: (0 + 1/sqrt 2) / 4.
        # I-3 has no phrases, so its text counts: (3 * 1/sqrt 5 + 3/sqrt 10) / 4.
        scores = [a.score for a in result.alignments]
        assert scores == pytest.approx([0.926777, 0.176777, 0.572581], abs=1e-6)
        assert {a.source for a in result.alignments} == {"cosine"}

    def test_without_a_profile_the_text_is_compared(self) -> None:
        align = Embedding(LetterEncoder())
        (found,) = align(user=UserView("aab"), candidates=[Candidate("I-1", "a")], seed=0).alignments
        assert found.score == pytest.approx(2 / 5**0.5)

    def test_the_encoder_is_shared_by_copies(self) -> None:
        align = Embedding(LetterEncoder())
        assert align.deepcopy().encoder.value is align.encoder.value
