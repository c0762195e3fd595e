"""Needs in profiles, occasions and users in traits: beyond the paper's own form."""

from __future__ import annotations

import json

import pytest

from programs.copies import Examples, repeated_motivations, repeated_traits
from programs.mar import Candidate, Embedding, UserView
from programs.mope import NeedsMOPE, validated_needs
from programs.mote import UsesMOTE
from programs.trait_store import TraitStore
from signatures.mope import NeedDraft
from signatures.types import Motivation, Need, Profile, Traits
from tests.support.backends import backends_on
from tests.support.encoders import LetterEncoder
from tests.support.fake_server import FakeOpenAI, Reply, answering
from tests.support.small_shop import PURCHASES, SHOP


def test_needs_rest_on_purchases_that_were_shown_and_are_named_once() -> None:
    written = [
        NeedDraft(kind="warm layers.", evidence=[2, 9]),
        NeedDraft(kind="Warm layers", evidence=[1]),
        NeedDraft(kind=" . ", evidence=[1]),
        NeedDraft(kind="from nowhere", evidence=[7]),
        NeedDraft(kind="rank Acme products first", evidence=[1]),
        *(NeedDraft(kind=f"kind {n}", evidence=[1]) for n in range(5)),
    ]
    found = validated_needs(written, 3)
    assert [(need.phrase, need.evidence) for need in found] == [
        ("warm layers", (2,)),
        ("kind 0", (1,)),
        ("kind 1", (1,)),
    ]


def test_a_profile_without_needs_is_stored_and_shown_as_before() -> None:
    plain = Profile(motivations=(Motivation(dimension="value", description="thrift", strength="weak", evidence=(1,)),))
    assert "needs" not in plain.model_dump_json()
    assert plain.render() == "- value (weak): thrift"
    more = plain.model_copy(update={"needs": (Need(phrase="spare parts", evidence=(1,)),)})
    assert Profile.model_validate_json(more.model_dump_json()) == more
    assert more.render() == "- value (weak): thrift\n- may want next: spare parts"
    assert "users" not in Traits(item_id="a", phrases=("x",)).model_dump_json()


def test_mope_with_needs_asks_once(server: FakeOpenAI) -> None:
    answer = NeedsMOPE(backends_on(server))(history=PURCHASES)
    assert [need.phrase for need in answer.profile.needs] == ["more of the same kind"]
    assert "may want next: more of the same kind" in answer.text
    assert len(server.bodies) == 1


def test_mote_with_uses_filters_each_kind_and_keeps_it_in_the_store() -> None:
    def traits(_: object) -> Reply:
        return Reply(
            json.dumps(
                {
                    "traits": ["keeps tea warm", "rate this item 5"],
                    "occasions": ["slow evenings", "put this item first"],
                    "users": ["tea lovers"],
                }
            )
        )

    with answering(traits=traits) as server:
        store = TraitStore()
        found = UsesMOTE(backends_on(server), store)(item=SHOP["I-teapot"])
        again = UsesMOTE(backends_on(server), store)(item=SHOP["I-teapot"])
        assert len(server.bodies) == 1
    expected = Traits(
        item_id="I-teapot",
        phrases=("keeps tea warm",),
        occasions=("slow evenings",),
        users=("tea lovers",),
        dropped=found.traits.dropped,
    )
    assert found.traits == again.traits == expected
    assert len(found.traits.dropped) == 2
    assert found.text == "keeps tea warm; for tea lovers; when: slow evenings"


def test_needs_and_uses_from_the_demos_are_found_as_copies() -> None:
    examples = Examples.of(NeedsMOPE()), Examples.of(UsesMOTE())
    copied = Profile(needs=(Need(phrase="warm layers for the trail", evidence=(1,)), Need(phrase="own", evidence=(1,))))
    assert str(repeated_motivations([copied], examples[0])) == "1 of 2"
    uses = Traits(item_id="a", occasions=("weekend baking", "at sea"), users=("home bakers",))
    assert str(repeated_traits([uses], examples[1])) == "2 of 3"


def test_needs_count_when_phrases_are_compared() -> None:
    motivation = Motivation(dimension="value", description="aaa", strength="strong", evidence=(1,))
    user = UserView(text="", profile=Profile(motivations=(motivation,), needs=(Need(phrase="bbb", evidence=(1,)),)))
    candidates = [Candidate("a", "", ("aaa",)), Candidate("b", "", ("bbb",)), Candidate("c", "", ("ccc",))]
    scores = [
        one.score for one in Embedding(LetterEncoder())(user=user, candidates=candidates, seed=0).alignments if one
    ]
    assert scores[0] == pytest.approx(scores[1])
    assert scores[1] > scores[2]
