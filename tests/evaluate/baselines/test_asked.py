"""What a program was asked about, as features: known for its own lists only."""

from __future__ import annotations

import numpy as np

from evaluate.baselines.sources.asked import AskedAbout
from evaluate.baselines.sources.leanings import LeaningsFeature
from evaluate.baselines.sources.lists import ItemIndex, Lists
from programs.motivation_encoder import MotivationEncoder
from programs.prior.encoders import HashingEncoder
from signatures.rows import Case, Ranking
from signatures.schema import CONSUMER
from signatures.types import Interaction, Item, Motivation, Need, Profile, Traits

ITEMS = {
    name: Item(item_id=name, title=title) for name, title in {"a": "warm coat", "b": "quiet lamp", "x": "scarf"}.items()
}
MOTIVATIONS = MotivationEncoder(HashingEncoder(), CONSUMER, ITEMS)
INDEX = ItemIndex.of(ITEMS)
CASE = Case(user_id="u", history=(Interaction(item_id="x"),), candidates=("a", "b", "cold"))
PROFILE = Profile(
    motivations=(
        Motivation(dimension=CONSUMER.names[0], description="keeps warm", strength="strong", evidence=(1,)),
        Motivation(dimension=CONSUMER.names[1], description="reads at night", strength="weak", evidence=(1,)),
    ),
    needs=(Need(phrase="light for reading", evidence=(1,)),),
)
ROW = Ranking(
    user_id="u",
    order=("a", "b", "cold"),
    scores={"mar": [0.9, 0.3, -0.7], "prior": [0, 0, 0]},
    profile=PROFILE,
    traits=[Traits(item_id="a", phrases=("keeps warm",)), Traits(item_id="b", phrases=("light for reading",))],
    appended=1,
)
SOURCE = AskedAbout("listwise", [CASE], {"u": ROW}, None, MOTIVATIONS)


def features(case: Case) -> dict[str, list[float]]:
    table = SOURCE.features(Lists.of([case], INDEX))
    return dict(zip(SOURCE.names, table.T.tolist(), strict=True))


def test_scores_and_matches_of_a_list_that_was_asked_about() -> None:
    found = features(CASE)
    assert np.allclose(found["listwise.mar"][:2], [1.0, -1.0])
    assert found["listwise.mar.rank"][:2] == [0.75, 0.25]
    assert np.isnan(found["listwise.mar"][2]), "MAR left this candidate out"
    assert np.isclose(found["listwise.profile"][0], 1.0), "the trait is the motivation, word for word"
    assert found["listwise.profile.mean"][0] < 1.0
    assert np.isclose(found["listwise.need"][1], 1.0)
    leanings = MOTIVATIONS.of(ITEMS["a"])
    assert np.isclose(found["listwise.dimension"][0], leanings[0] + leanings[1] / 3)


def test_other_lists_of_the_same_user_are_unknown() -> None:
    other = CASE.model_copy(update={"candidates": ("b", "a", "x")})
    assert np.isnan(SOURCE.features(Lists.of([other], INDEX))).all()
    both = SOURCE.features(Lists.of([other, CASE], INDEX))
    assert both.shape == (6, 6)
    assert not np.isnan(both[3]).any()


def test_a_user_who_was_not_asked_about_is_unknown() -> None:
    row = Ranking(user_id="u", order=CASE.candidates, scores={"prior": [3, 2, 1]}, asked=False)
    source = AskedAbout("listwise", [CASE], {"u": row}, None, MOTIVATIONS)
    assert np.isnan(source.features(Lists.of([CASE], INDEX))).all()


def test_leanings_are_those_of_the_program_encoder() -> None:
    found = LeaningsFeature(MOTIVATIONS, INDEX).features(Lists.of([CASE], INDEX))[:, 0]
    own = MOTIVATIONS.of(ITEMS["x"])
    assert np.allclose(found[:2], [own @ MOTIVATIONS.of(ITEMS["a"]), own @ MOTIVATIONS.of(ITEMS["b"])])
    assert np.isnan(found[2])
