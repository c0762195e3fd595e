"""Rankers on an edited catalogue are what they would be if the catalogue had always been so."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from evaluate.attacks.attack import Attack, Insertion
from evaluate.attacks.attacked_ranker import AttackedRanker, attacked_ranker, edited_catalogue
from evaluate.data.demo.store import demo_dataset
from evaluate.protocol.splits import split_dataset
from evaluate.ranker_factory import BASELINES, RankerFactory
from programs.lm.backends import Backends
from programs.lm.ledger import Ledger
from programs.prior.encoders import HashingEncoder
from programs.ranker import Ranker, ranking_from_scores
from programs.runtime.errors import InputError
from programs.trait_store import TraitStore
from signatures.rows import Case, Ranking
from signatures.types import Item
from tests.support.attacks import MAGIC, OPEN
from tests.support.backends import roles_on
from tests.support.cases import demo_cases
from tests.support.datasets import protocol_for
from tests.support.fake_server import FakeOpenAI, last_user

DATA = demo_dataset()
CASE = demo_cases(1)[0].blinded()
VICTIM = CASE.candidates[3]
STUFFED = Attack("stuffed", "keyword-stuffing", title=Insertion(after=" " + DATA.items[CASE.item_ids[-1]].text))


def factory_on(server: FakeOpenAI, items: dict[str, Item]) -> RankerFactory:
    """A factory on the demo store with these items."""
    data = replace(DATA, items=items)
    backends = Backends(roles_on(server), Ledger())
    return RankerFactory(
        dataset=data,
        training=split_dataset(DATA, protocol_for(DATA, part="test")).training,
        encoder_of=HashingEncoder,
        backends_of=lambda: backends,
        traits_of=TraitStore,
    )


def attacked(name: str, factory: RankerFactory) -> AttackedRanker:
    return attacked_ranker(name, factory.ranker(name), factory, {})


@pytest.mark.parametrize("name", [*BASELINES, "llm-only", "without-mote", "listwise", "pointwise", "embedding"])
@pytest.mark.parametrize("edited", [STUFFED.apply(DATA.items[VICTIM]), STUFFED.control(DATA.items[VICTIM])])
def test_an_edit_is_what_a_new_catalogue_would_be(server: FakeOpenAI, name: str, edited: Item) -> None:
    ranker = attacked(name, factory_on(server, DATA.items))
    clean = ranker.rank(CASE, None)
    fresh = factory_on(server, {**DATA.items, VICTIM: edited}).ranker(name).rank(CASE)
    assert ranker.rank(CASE, edited) == fresh
    assert ranker.rank(CASE, None) == clean == factory_on(server, DATA.items).ranker(name).rank(CASE)


def test_stuffing_moves_what_reads_texts_and_nothing_else(server: FakeOpenAI) -> None:
    edited = STUFFED.apply(DATA.items[VICTIM])
    for name in BASELINES:
        ranker = attacked(name, factory_on(server, DATA.items))
        moved = ranker.rank(CASE, edited).scores[name] != ranker.rank(CASE, None).scores[name]
        assert moved == (name in ("content", "prior")), name


def test_an_attack_distils_the_attacked_item_and_no_other(server: FakeOpenAI) -> None:
    ranker = attacked("listwise", factory_on(server, DATA.items))
    ranker.rank(CASE, None)
    before = len(server.bodies)
    ranker.rank(CASE, OPEN.apply(DATA.items[VICTIM]))
    asked = [last_user(body) for body in server.bodies[before:]]
    distilled = [text for text in asked if "JSON: traits" in text]
    assert len(distilled) == 1
    assert MAGIC in distilled[0]
    assert not any("JSON: motivations" in text for text in asked), "the profile comes from the response cache"


def test_programs_know_whether_they_have_mote(server: FakeOpenAI) -> None:
    factory = factory_on(server, DATA.items)
    names = ("prior", "llm-only", "without-mote", "without-mope", "listwise", "pointwise", "embedding")
    found = {name for name in names if attacked(name, factory).with_mote}
    assert found == {"without-mope", "listwise", "pointwise", "embedding"}


def test_trained_rankers_are_refused(server: FakeOpenAI) -> None:
    class Trained:
        def rank(self, case: Case) -> Ranking:
            return ranking_from_scores(case, {"own": [0.0] * len(case.candidates)}, by="own")

    trained: Ranker = Trained()
    with pytest.raises(InputError, match="bpr: trained rankers are not attacked"):
        attacked_ranker("bpr", trained, factory_on(server, DATA.items), {})


def test_an_edited_catalogue_leaves_the_original_alone() -> None:
    before = json.dumps({item_id: item.model_dump() for item_id, item in DATA.items.items()})
    catalogue = edited_catalogue(DATA.items, OPEN.apply(DATA.items[VICTIM]))
    assert MAGIC in catalogue[VICTIM].title
    assert len(catalogue) == len(DATA.items)
    assert json.dumps({item_id: item.model_dump() for item_id, item in DATA.items.items()}) == before
