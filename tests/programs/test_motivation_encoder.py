"""Motivations from a sentence encoder, on vectors worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from programs.mar import Candidate, UserView
from programs.motivation_encoder import EncoderProfile, EncoderTraits, LeaningsMatch, MotivationEncoder
from signatures.schema import Dimension, MotivationSchema
from signatures.types import Item

SCHEMA = MotivationSchema(
    name="three",
    dimensions=(
        Dimension(name="play", definition="wants fun", kind="emotional"),
        Dimension(name="health", definition="wants health", kind="functional"),
        Dimension(name="thrift", definition="wants to save", kind="functional"),
    ),
)
AXES = {"play": 0, "health": 1, "thrift": 2}
CATALOGUE = {
    name: Item(item_id=name, title=title)
    for name, title in [("ball", "play play"), ("vitamin", "health"), ("coupon", "thrift"), ("gym", "play health")]
}


class AxisEncoder:
    """A text points along the axes of the dimension names in it."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.array([[float(text.replace(":", " ").split().count(name)) for name in AXES] for text in texts])
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0).astype(np.float32)


@pytest.fixture
def motivations() -> MotivationEncoder:
    return MotivationEncoder(AxisEncoder(), SCHEMA, CATALOGUE)


def test_leanings_are_unit_standard_scores_over_the_catalogue(motivations: MotivationEncoder) -> None:
    half = np.sqrt(0.5)
    cosines = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [half, half, 0]])
    scores = (cosines - cosines.mean(axis=0)) / cosines.std(axis=0)
    expected = scores / np.linalg.norm(scores, axis=1, keepdims=True)
    for row, item in zip(expected, CATALOGUE.values(), strict=True):
        np.testing.assert_allclose(motivations.of(item), row, atol=1e-6)


def test_an_item_outside_the_catalogue_is_compared_with_it(motivations: MotivationEncoder) -> None:
    np.testing.assert_allclose(motivations.of(Item.from_text("play")), motivations.of(CATALOGUE["ball"]), atol=1e-6)
    assert motivations.of(Item(item_id="bare")).tolist() == [0, 0, 0]
    assert MotivationEncoder(AxisEncoder(), SCHEMA, {}).of(Item.from_text("play")).tolist() == [1, 0, 0]


def test_a_text_that_a_caller_sends_is_not_kept(motivations: MotivationEncoder) -> None:
    first = motivations.of(Item.from_text("play thrift"))
    assert set(motivations._known[0]) == {item.text for item in CATALOGUE.values()}
    np.testing.assert_array_equal(motivations.of(Item.from_text("play thrift")), first)


def test_the_profile_rests_on_the_purchases_that_lean_to_it(motivations: MotivationEncoder) -> None:
    answer = EncoderProfile(motivations)(history=[CATALOGUE["vitamin"], CATALOGUE["ball"], CATALOGUE["ball"]])
    first = answer.profile.motivations[0]
    assert (first.dimension, first.strength, first.evidence) == ("play", "strong", (2, 3))
    assert first.description == "wants fun"
    assert all(motivation.dimension != "thrift" for motivation in answer.profile.motivations)
    assert answer.text == answer.profile.render()
    assert len(answer.leanings) == 3


def test_traits_are_the_strongest_dimensions(motivations: MotivationEncoder) -> None:
    assert EncoderTraits(motivations)(item=CATALOGUE["coupon"]).traits.phrases == ("thrift",)
    assert set(EncoderTraits(motivations)(item=CATALOGUE["gym"]).traits.phrases) == {"play", "health"}


def test_every_candidate_is_scored_by_the_dot_product() -> None:
    user = UserView(text="", leanings=(0.5, -1.0))
    candidates = [Candidate("a", "", leanings=(1.0, 0.0)), Candidate("b", "", leanings=(0.0, 1.0))]
    found = LeaningsMatch()(user=user, candidates=candidates, seed=0)
    assert [alignment.score for alignment in found.alignments if alignment] == [0.5, -1.0]
