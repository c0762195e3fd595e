"""Chat-REC: what its prompt shows, in which order, and what becomes of the rest of the list."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from evaluate.ranker_choice import choose_by_name
from programs.chat_rec import SHORTLIST, LikesDislikes, fusion_of
from programs.fusion import Fusion
from programs.gate import Gate
from programs.lm.model_options import ModelOptions
from programs.prior.scorers import Popularity
from programs.program import PROGRAMS
from programs.runtime.errors import InputError
from signatures.rows import Case
from signatures.types import Interaction, Item
from tests.support.fake_server import FakeOpenAI
from tests.support.small_shop import parts_on

ITEMS = {name: Item(item_id=name, title=f"thing {name}") for name in "abcdefgh"}
PRIOR = Popularity({name: float(place) for place, name in enumerate("cahbgdfe", start=1)})
"""`e` is the most popular, `c` the least."""
CASE = Case(
    user_id="u",
    history=(Interaction(item_id="a", rating=5), Interaction(item_id="b", rating=2)),
    candidates=tuple("cdefgh"),
)


def shown(name: str, server: FakeOpenAI, head: int) -> tuple[list[str], tuple[str, ...]]:
    """Items as the prompt lists them, and the whole ranking."""
    parts = replace(parts_on(server), catalogue=ITEMS, prior=PRIOR, fusion=fusion_of("chat-rec", Fusion(head=head)))
    ranking = PROGRAMS[name](parts).rank(CASE)
    question = server.bodies[-1]["messages"][-1]["content"]
    return re.findall(r"\d\d: thing (\w)", question), ranking.order


def test_the_shortlist_is_in_the_priors_order_and_the_rest_stays_below(server: FakeOpenAI) -> None:
    listed, order = shown("chat-rec", server, head=4)
    assert listed == list("efdg")
    assert set(order[:4]) == set("efdg") and order[4:] == ("h", "c")
    question = server.bodies[-1]["messages"][-1]["content"]
    assert "liked:\n- thing a (rated 5 of 5)\ndisliked:\n- thing b (rated 2 of 5)" in question


def test_the_shuffled_shortlist_is_not_in_the_priors_order(server: FakeOpenAI) -> None:
    listed, _ = shown("chat-rec-shuffled", server, head=6)
    assert sorted(listed) == list("cdefgh") and listed != list("efdghc")


def test_ties_of_the_prior_are_not_listed_in_the_order_of_the_candidates(server: FakeOpenAI) -> None:
    parts = replace(parts_on(server), catalogue=ITEMS, prior=Popularity({}), fusion=fusion_of("chat-rec", Fusion()))
    for user in "uvw":
        PROGRAMS["chat-rec"](parts).rank(CASE.model_copy(update={"user_id": user}))
    asked = (body["messages"][-1]["content"] for body in server.bodies)
    listed = {tuple(re.findall(r"\d\d: thing (\w)", question)) for question in asked}
    assert len(listed) == 3 and CASE.candidates not in listed


def test_a_gate_would_take_the_models_order_its_weight() -> None:
    with pytest.raises(InputError, match=r"^chat-rec: the model's order stands"):
        fusion_of("chat-rec", Fusion(gate=Gate(weights=(0.3,))))
    assert fusion_of("listwise", Fusion(gate=Gate(weights=(0.3,)))).gate is not None


def test_facts_are_shown_and_nothing_else_is_claimed() -> None:
    assert (
        LikesDislikes()(history=[], metadata={"age": "30"}).text == "facts: age 30\nliked: nothing\ndisliked: nothing"
    )


@pytest.mark.parametrize(("head", "expected"), [(None, SHORTLIST), (10, 10)])
def test_by_name_the_models_order_stands(head: int | None, expected: int) -> None:
    choice = choose_by_name("chat-rec", ModelOptions(), Fusion(head=head), None)
    assert (choice.fusion.weight, choice.fusion.head) == (1.0, expected)
    assert choose_by_name("llm-only", ModelOptions(), Fusion(), None).fusion == Fusion()
