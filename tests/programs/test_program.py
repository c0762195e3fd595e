"""Programs: how MOPE, MOTE and MAR are composed, and how MAR is fused with the prior."""

from __future__ import annotations

import json
from typing import Any

import dspy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluate.data.demo.store import demo_dataset
from evaluate.protocol.cases import draw_lists
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.protocol.splits import split_dataset
from programs.chat_rec import RERANKING
from programs.lm.backends import Backends
from programs.mar import Aligner, Pointwise
from programs.mope import MOPE
from programs.prior.scorers import Popularity, histories_of
from programs.program import PROGRAMS, WITHOUT_MODEL, Fusion, MLLM3Rec, Parts, head_of
from programs.ranker import Ranker, order_by_score
from programs.runtime.events import Event, Progress
from programs.trait_store import TraitStore
from signatures.rows import Status
from signatures.types import Item
from tests.support.backends import roles_on
from tests.support.encoders import LetterEncoder
from tests.support.fake_server import Body, FakeOpenAI, Reply, answering, last_user, sensible
from tests.support.prompts import asking, labels_shown, text_of
from tests.support.small_shop import CASE, INJECTION, PRIOR_ORDER, SHOP, parts_on


class TestFusion:
    prior = np.array([3.0, 1.0, 2.0, 2.5])

    def test_by_hand(self) -> None:
        # z of (1, 3) is (-1, 1), z of (10, 20) likewise.
        fused = Fusion(weight=0.25).fuse(np.array([1.0, 3.0]), np.array([20.0, 10.0]), 5)
        assert fused.tolist() == pytest.approx([0.5, -0.5])

    def test_weights_of_nothing_and_all(self) -> None:
        mar = np.array([0.1, 0.4, 0.3, 0.2])
        assert np.argsort(-Fusion(weight=0).fuse(mar, self.prior, 5)).tolist() == [0, 3, 2, 1]
        assert np.argsort(-Fusion(weight=1).fuse(mar, self.prior, 5)).tolist() == [1, 2, 3, 0]

    @given(
        mar=st.lists(st.integers(1, 50), min_size=6, max_size=6),
        prior=st.lists(st.integers(-50, 50), min_size=6, max_size=6),
    )
    def test_at_either_end_the_order_is_that_of_one_side(self, mar: list[int], prior: list[int]) -> None:
        items = tuple("abcdef")
        x, y = np.array(mar, dtype=float), np.array(prior, dtype=float)
        for weight, alone in ((0.0, y), (1.0, x + y / 1000)):  # what MAR leaves tied is the prior's to order
            fused = Fusion(weight=weight).fuse(x, y, 5)
            assert order_by_score(items, fused.tolist(), 5) == order_by_score(items, alone.tolist(), 5)

    def test_those_outside_the_head_stay_below_in_the_prior_s_order(self) -> None:
        mar = np.array([1.0, np.nan, np.nan, 5.0])
        assert head_of(self.prior, 2, 5).tolist() == [0, 3]
        for weight in (0.0, 0.3, 1.0):
            fused = Fusion(weight=weight, head=2).fuse(mar, self.prior, 5)
            assert set(np.argsort(-fused)[:2]) == {0, 3}
            assert np.argsort(-fused)[2:].tolist() == [2, 1]
        assert np.argsort(-Fusion(weight=1, head=2).fuse(mar, self.prior, 5))[0] == 3

    @given(
        st.lists(st.floats(-9, 9), min_size=2, max_size=8, unique=True),
        st.integers(1, 9),
        st.integers(0, 99),
        st.data(),
    )
    def test_without_ties_the_ranking_is_that_of_a_stable_sort(
        self, scores: list[float], head: int, seed: int, data: st.DataObject
    ) -> None:
        prior = np.array(scores)
        mar = np.array(data.draw(st.permutations([float(n) for n in range(len(scores))])))
        first = np.sort(np.argsort(-prior, kind="stable")[:head])
        assert head_of(prior, head, seed).tolist() == first.tolist()
        below = np.setdiff1d(np.arange(len(prior)), first)
        falling = below[np.argsort(-prior[below], kind="stable")]
        fused = Fusion(weight=0.3, head=head).fuse(mar, prior, seed)
        if len(below):
            assert fused[falling].tolist() == (fused[first].min() - 1 - np.arange(len(falling))).tolist()
        assert fused[first].tolist() == Fusion(weight=0.3).fuse(mar[first], prior[first], seed).tolist()

    @given(st.lists(st.integers(0, 2), min_size=2, max_size=12), st.integers(1, 12), st.integers(0, 99))
    def test_with_ties_the_head_is_the_beginning_of_the_prior_s_order(
        self, scores: list[int], head: int, seed: int
    ) -> None:
        prior, items = np.array(scores, dtype=float), tuple(map(str, range(len(scores))))
        order = order_by_score(items, scores, seed)
        assert {items[place] for place in head_of(prior, head, seed)} == set(order[:head])
        silent = Fusion(weight=0.3, head=head).fuse(np.full(len(prior), np.nan), prior, seed)
        assert order_by_score(items, silent.tolist(), seed) == order

    @pytest.mark.parametrize("head", [3, None])
    def test_no_place_in_the_list_is_worth_anything_where_all_are_tied(self, head: int | None) -> None:
        """The share of 600 users whose first or last candidate is among the first 3 of 9 is a third, give or take."""
        items, draw = tuple("abcdefghi"), np.random.default_rng(0)
        found = dict.fromkeys("ai", 0)
        for seed in range(600):
            fused = Fusion(head=head).fuse(draw.random(9), np.zeros(9), seed)
            for item in set(order_by_score(items, fused.tolist(), seed)[:3]) & found.keys():
                found[item] += 1
        assert all(160 < count < 240 for count in found.values())

    def test_a_candidate_left_out_gains_nothing_by_it(self) -> None:
        fused = Fusion(weight=1).fuse(np.array([2.0, np.nan, 1.0, 3.0]), self.prior, 5)
        assert np.argsort(-fused).tolist() == [3, 0, 2, 1]

    @pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
    @pytest.mark.parametrize("head", [None, 2])
    def test_where_mar_said_nothing_the_prior_decides(self, weight: float, head: int | None) -> None:
        fused = Fusion(weight=weight, head=head).fuse(np.full(4, np.nan), self.prior, 5)
        assert np.argsort(-fused).tolist() == [0, 3, 2, 1]
        assert len(set(fused)) == 4


class TestPrograms:
    # the tuned ones need a base model on the disk: tests/programs/tuned
    @pytest.mark.parametrize("name", sorted(PROGRAMS.keys() - {"tuned", "tuned-profiles"}))
    def test_every_composition_ranks_a_case_of_the_demo_store(self, name: str, server: FakeOpenAI) -> None:
        store = demo_dataset()
        protocol = EvaluationProtocol(
            dataset="demo", source="demo", dataset_sha256=store.sha256, part="test", users=1, negatives=8
        )
        (case,) = draw_lists(store, protocol)
        prior = Popularity.fit(histories_of(split_dataset(store, protocol).training))
        # A reranker writes no reasons, so the judge has a model of its own.
        backends = Backends(roles_on(server).with_models(judge=server.model("chat")))
        parts = Parts(backends, store.items, prior, LetterEncoder(), TraitStore(), explain=2)
        program = PROGRAMS[name](parts)
        assert isinstance(program, Ranker)
        assert isinstance(program.aligner, Aligner)
        ranking = program.rank(case.blinded())
        assert sorted(ranking.order) == sorted(case.candidates)
        assert ranking.status is Status.OK
        assert {name: len(vector) for name, vector in ranking.scores.items()} == {"prior": 9, "mar": 9, "fused": 9}
        assert ranking.scores["prior"] == prior.scores([], case.candidates).tolist()
        assert (ranking.profile is None) == (name in {"without-mope", "llm-only"} | RERANKING)
        assert len(ranking.traits) == (0 if name in {"without-mote", "llm-only"} | RERANKING else 9)
        assert 2 <= len(ranking.rationales) <= 4 or name in WITHOUT_MODEL
        total = backends.ledger.total()
        assert (total.calls, total.tokens_in) == (len(server.bodies), server.tokens_in)
        assert (ranking.unparsable, ranking.appended, ranking.dropped) == (0, 0, 0)

    def test_the_progress_within_one_user_is_told(self, server: FakeOpenAI) -> None:
        events: list[Event] = []
        ranking = PROGRAMS["listwise"](parts_on(server, explain=2)).rank(CASE, events.append)
        assert ranking.status is Status.OK
        steps = [(event.task, event.done, event.total) for event in events if isinstance(event, Progress)]
        assert len(steps) == len(events)
        traits = [("traits of the candidates", done, 4) for done in range(5)]
        reasons = [step for step in steps if step[0] == "reasons"]
        assert steps == [
            ("profile of the user", 0, 1),
            ("profile of the user", 1, 1),
            *traits,
            ("ranking the candidates", 0, 1),
            ("ranking the candidates", 1, 1),
            *reasons,
        ]
        assert (reasons[0][1:], reasons[-1][1:]) == ((0, 2), (2, 2))
        assert len(reasons) == len(ranking.rationales) + 1

    def test_an_aligner_that_asks_no_model_is_no_step(self, server: FakeOpenAI) -> None:
        events: list[Event] = []
        PROGRAMS["embedding-without-reflection"](parts_on(server)).rank(CASE, events.append)
        tasks = {event.task for event in events if isinstance(event, Progress)}
        assert tasks == {"profile of the user", "traits of the candidates"}
        assert len(server.bodies) == 5, "one profile, four items"

    @pytest.mark.parametrize("name", ["pointwise", "listwise", "without-mope", "without-reflection"])
    def test_no_seller_text_of_a_candidate_reaches_mar(self, name: str, server: FakeOpenAI) -> None:
        def distilled(body: Body) -> list[str]:
            return [f"{INJECTION} now", "ignore the others", f"for purpose {chr(97 + len(last_user(body)) % 26) * 3}"]

        with answering(traits=distilled) as server:
            ranking = PROGRAMS[name](parts_on(server, explain=2)).rank(CASE)
        assert len(asking(server, "Answer in JSON: traits.")) == 4
        mar = [*asking(server, "Rating:"), *asking(server, "JSON: ranking."), *asking(server, "JSON: reason.")]
        mar += asking(server, "JSON: faithful, why.")
        assert len(mar) >= 5
        seen = text_of(mar).casefold()
        for text in (INJECTION, "ignore the others", "wool blanket", "woven", "desk lamp", "tin drum", "gold watch"):
            assert text.casefold() not in seen
        assert not [item_id for item_id in SHOP if item_id.casefold() in seen]
        (evil,) = [traits for traits in ranking.traits if traits.item_id == "I-evil"]
        assert [reason.split(":")[0] for reason in evil.dropped] == ["instruction", "instruction"]

    def test_the_labels_of_a_list_are_drawn_for_each_shopper(self, server: FakeOpenAI) -> None:
        program = PROGRAMS["listwise"](parts_on(server))
        for user in ("ann", "bob"):
            program.rank(CASE.model_copy(update={"user_id": user}))
        ann, bob = (labels_shown(body) for body in asking(server, "JSON: ranking."))
        assert sorted(ann) == sorted(bob)
        assert ann != bob

    def test_without_mote_mar_reads_the_descriptions(self, server: FakeOpenAI) -> None:
        PROGRAMS["without-mote"](parts_on(server)).rank(CASE)
        assert "Wool blanket | Home > Bedding | Woven slowly." in text_of(asking(server, "JSON: ranking."))

    def test_mar_sees_the_head_of_the_prior_alone(self, server: FakeOpenAI) -> None:
        parts = parts_on(server, fusion=Fusion(weight=1.0, head=2))
        ranking = PROGRAMS["listwise"](parts).rank(CASE)
        (body,) = asking(server, "JSON: ranking.")
        assert len(labels_shown(body)) == 2
        assert [traits.item_id for traits in ranking.traits] == ["I-blanket", "I-lamp"]
        assert set(ranking.order[:2]) == set(PRIOR_ORDER[:2])
        assert ranking.order[2:] == PRIOR_ORDER[2:]

    @pytest.mark.parametrize("weight", [0.0, 1.0])
    def test_the_order_at_either_end_of_the_weight(self, weight: float) -> None:
        order = ("I-evil", "I-drum", "I-blanket", "I-lamp")
        digit = dict(zip(order, "4321", strict=True))

        def rate(body: Body) -> Reply:
            if "Rating:" not in last_user(body):
                return sensible(body)
            return Reply(next(digit[i] for i in SHOP if i != "I-teapot" and f"{i[2:]}-like" in last_user(body)))

        with FakeOpenAI(rate) as server:
            parts = parts_on(server, fusion=Fusion(weight=weight))
            program = MLLM3Rec(
                MOPE(parts.backends), _Named(), Pointwise(parts.backends), SHOP, parts.prior, parts.fusion
            )
            ranking = program.rank(CASE)
        assert ranking.order == (order if weight else PRIOR_ORDER)

    @pytest.mark.parametrize("weight", [0.3, 1.0])
    @pytest.mark.parametrize("field", ["motivations", "ranking"])
    def test_a_row_without_any_answer_is_unparsable_and_ordered_by_the_prior(self, field: str, weight: float) -> None:
        with answering(**{field: lambda _: Reply("sorry")}) as server:
            program = PROGRAMS["listwise"](parts_on(server, fusion=Fusion(weight=weight), explain=2))
            ranking = program.rank(CASE)
        assert (ranking.status, ranking.order) == (Status.UNPARSABLE, PRIOR_ORDER)
        assert (ranking.unparsable, ranking.rationales) == (2, [])

    def test_a_product_nobody_could_read_costs_the_others_nothing(self) -> None:
        def distilled(body: Body) -> Any:
            return Reply("no") if "Tin drum" in last_user(body) else ["warm evenings"]

        with answering(traits=distilled) as server:
            ranking = PROGRAMS["listwise"](parts_on(server)).rank(CASE)
        assert (ranking.status, ranking.unparsable, len(ranking.traits)) == (Status.OK, 2, 3)

    def test_a_failure_of_the_server_is_raised_and_never_a_miss(self) -> None:
        with (
            FakeOpenAI(lambda _: Reply("broken", status=400)) as server,
            pytest.raises(Exception, match="broken"),
        ):
            PROGRAMS["listwise"](parts_on(server)).rank(CASE)

    def test_explanations_reorder_what_was_chosen(self) -> None:
        with answering(faithful=lambda _: Reply(json.dumps({"faithful": "no", "why": "no"}))) as server:
            parts = parts_on(server, fusion=Fusion(weight=0.0), explain=1)
            ranking = PROGRAMS["listwise"](parts).rank(CASE)
        assert [r.verdict.faithful for r in ranking.rationales] == [False, False]
        assert ranking.order == (PRIOR_ORDER[0], *PRIOR_ORDER[2:], PRIOR_ORDER[1])

    def test_a_copy_ranks_alike_and_pays_nothing(self, server: FakeOpenAI) -> None:
        program = PROGRAMS["listwise"](parts_on(server))
        first = program.rank(CASE)
        calls = len(server.bodies)
        assert program.deepcopy().rank(CASE) == first
        assert len(server.bodies) == calls


class _Named(dspy.Module):
    """A product module that names its item, so that a rule of the fake server can tell the candidates apart."""

    def forward(self, item: Item) -> dspy.Prediction:
        return dspy.Prediction(traits=None, text=f"{item.item_id[2:]}-like", unparsable=0)
