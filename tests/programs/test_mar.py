"""MAR: ratings, lists and embeddings, and what is made of a wrong answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import dspy
import numpy as np
import pytest
from dspy.utils.exceptions import LMError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from programs.lm.backends import Backends
from programs.lm.ledger import Budget, Ledger
from programs.lm.prices import Price
from programs.lm.roles import RoleConfig, Roles
from programs.mar import Alignments, Candidate, Embedding, Listwise, Pointwise, Rerank, UserView
from programs.program import PROGRAMS
from programs.runtime.errors import BudgetExceededError, InputError
from signatures.rows import Status
from signatures.types import Motivation, Profile
from tests.support.backends import backends_on, prices_for, roles_on
from tests.support.encoders import LetterEncoder
from tests.support.fake_server import Body, FakeOpenAI, Reply, answering, digest, last_user, replying, sensible
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


class TestRerank:
    """A reranker is asked by a route of its own, under the rules of chat calls."""

    USER = UserView("- value (strong): much for little")
    CANDIDATES = (Candidate("I-1", "easy to clean"), Candidate("I-2", "kind to skin"), Candidate("I-3", "sturdy"))

    def ranked(self, server: FakeOpenAI, **more: Any) -> Alignments:
        return Rerank(backends_on(server, **more))(user=self.USER, candidates=self.CANDIDATES, seed=0)

    def test_one_call_scores_every_candidate(self, server: FakeOpenAI) -> None:
        ledger = Ledger()
        result = self.ranked(server, ledger=ledger)
        (body,) = server.bodies
        assert server.paths == ["/v1/rerank"]
        assert body == {
            "model": "fake",
            "query": self.USER.text,
            "documents": [candidate.text for candidate in self.CANDIDATES],
            "top_n": 3,
        }
        scores = {c.item_id: digest(self.USER.text, c.text) % 1000 / 1000 for c in self.CANDIDATES}
        found = [alignment for alignment in result.alignments if alignment is not None]
        assert {one.item_id: one.score for one in found} == scores
        assert {one.source for one in found} == {"relevance"}
        assert (result.appended, result.dropped, result.unparsable) == (0, 0, 0)
        assert ledger.by_role()["mar"].tokens_in == server.tokens_in > 0

    def test_an_answer_is_stored(self, server: FakeOpenAI) -> None:
        ledger = Ledger()
        assert self.ranked(server, ledger=ledger) == self.ranked(server, ledger=ledger)
        assert len(server.bodies) == 1
        assert (ledger.total().calls, ledger.total().cache_hits) == (1, 1)

    def test_a_budget_and_a_passing_failure(self) -> None:
        with replying(Reply(status=503, headers={"Retry-After": "0"})) as server:
            ledger = Ledger(budget=Budget(calls=2))
            assert self.ranked(server, ledger=ledger).appended == 0
            other = (Candidate("I-9", "another"),)
            with pytest.raises(BudgetExceededError):
                Rerank(backends_on(server, ledger))(user=self.USER, candidates=other, seed=0)
            assert len(server.bodies) == 2

    def test_the_upper_estimate_counts_the_query_once_for_each_document(self, server: FakeOpenAI) -> None:
        long = UserView("x" * 4000)
        prices = prices_for(server, Price(input=1.0, output=0.0))
        # At most half a token per letter: 2,000 for the query, in the request itself and beside each of 3 documents.
        for usd, calls in ((0.007, 0), (0.009, 1)):
            ledger = Ledger(budget=Budget(usd=usd))
            align = Rerank(backends_on(server, ledger, prices))
            if calls:
                align(user=long, candidates=self.CANDIDATES, seed=0)
            else:
                with pytest.raises(BudgetExceededError):
                    align(user=long, candidates=self.CANDIDATES, seed=0)
            assert len(server.bodies) == calls

    def test_a_candidate_that_is_left_out_or_unreadable_has_no_score(self) -> None:
        results = [
            {"index": 2, "relevance_score": 0.5},
            {"index": 7, "relevance_score": 0.9},
            {"index": 0, "relevance_score": float("nan")},
        ]
        reply = Reply(raw=json.dumps({"results": results}).encode())
        with FakeOpenAI(lambda body: reply) as server:
            result = self.ranked(server)
        assert [one and one.score for one in result.alignments] == [None, None, 0.5]
        assert (result.appended, result.unparsable) == (2, 0)

    @pytest.mark.usefixtures("hurried")
    @pytest.mark.parametrize("answer", [{"results": []}, {"error": "busy"}, {"results": [{"index": 0}]}])
    def test_an_answer_without_a_score_is_a_failure_of_the_server(self, answer: object) -> None:
        reply = Reply(raw=json.dumps(answer).encode())
        with FakeOpenAI(lambda body: reply) as server, pytest.raises(LMError, match="but not what was asked"):
            self.ranked(server)

    def test_a_text_that_is_refused_leaves_the_user_to_the_prior(self) -> None:
        with FakeOpenAI(lambda body: Reply("the input is too long for this model", status=400)) as server:
            result = self.ranked(server)
        assert (result.alignments, result.appended, result.unparsable) == ([None] * 3, 3, 1)

    def test_a_model_without_the_route_is_refused(self) -> None:
        for model, said in (("gguf:/no/such.gguf", "no model file"), ("cohere/rerank-v3", "no server for /rerank")):
            roles = Roles.all_on(RoleConfig(model=model))
            with pytest.raises(InputError, match=said):
                Rerank(Backends(roles))(user=self.USER, candidates=self.CANDIDATES, seed=0)
        with dspy.context(lm=dspy.LM("openai/gpt-4.1", api_key="-")), pytest.raises(InputError, match="has no /rerank"):
            Rerank()(user=self.USER, candidates=self.CANDIDATES, seed=0)

    def test_reasons_are_written_by_the_judge_s_model(self, server: FakeOpenAI) -> None:
        parts = parts_on(server, explain=1)
        with pytest.raises(InputError, match="name a chat model for them with --judge"):
            PROGRAMS["rerank"](parts)
        roles = roles_on(server)
        other = roles.with_models(judge=server.model("chat"))
        program = PROGRAMS["rerank"](replace(parts, backends=Backends(other)))
        ranking = program.rank(CASE)
        assert len(ranking.rationales) >= 1
        assert ranking.score_source == "relevance"
        asked = [body for body in server.bodies if body["model"] == "chat"]
        assert len(asked) == 2 * len(ranking.rationales), "a reason, and its check"
