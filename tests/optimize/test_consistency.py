"""Eq. 5 by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimize.consistency import (
    agreement,
    consistency,
    keyword_overlap,
    resemblance,
    schema_cooccurrence,
    semantic_similarity,
    weighted,
)
from signatures.schema import CONSUMER
from signatures.types import Profile
from tests.support.profiles import profile

FUN = profile(("enjoyment", "playful evenings"))
FUN_AND_VALUE = profile(("enjoyment", "playful family evenings"), ("value", "much for little money"))
GREEN = profile(("sustainability", "less plastic waste"))


@pytest.mark.parametrize(
    ("profiles", "expected"),
    [
        ([FUN], 1),
        ([FUN, FUN], 1),
        ([FUN, GREEN], (1 + 0 + 0 + 1) / 4),
        ([FUN, FUN_AND_VALUE], (1 + 1 / 2 + 1 / 2 + 1) / 4),
        ([FUN, FUN_AND_VALUE, GREEN], (3 * 1 + 2 * (1 / 2) + 2 * 0 + 2 * 0) / 9),
        ([Profile(), Profile()], 0),
    ],
)
def test_schema_cooccurrence(profiles: list[Profile], expected: float) -> None:
    assert consistency(profiles, schema_cooccurrence) == pytest.approx(expected)


def test_keywords() -> None:
    # {playful, evenings} against {playful, family, evenings, much, for, little, money}: 2 of 7
    assert keyword_overlap([FUN, FUN_AND_VALUE])[0, 1] == pytest.approx(2 / 7)


class Compass:
    """Phrases as directions: east, north, or between."""

    name = "compass"
    _vectors: ClassVar = {"east": (1.0, 0.0), "north": (0.0, 1.0), "west": (-1.0, 0.0)}

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([self._vectors[text] for text in texts], dtype=np.float32)


def test_semantic_similarity() -> None:
    similarity = semantic_similarity(Compass())
    east, north, west = (profile(("value", word)) for word in ("east", "north", "west"))
    both = profile(("value", "east"), ("value", "north"))
    matrix = similarity([east, north, west, both, Profile()])
    assert matrix[0] == pytest.approx([1, 0, 0, np.sqrt(1 / 2), 0])
    assert matrix[4] == pytest.approx([0, 0, 0, 0, 0])


def test_weighted_mix() -> None:
    mix = weighted([(3, schema_cooccurrence), (1, keyword_overlap)])
    assert mix([FUN, FUN_AND_VALUE])[0, 1] == pytest.approx(3 / 4 * 1 / 2 + 1 / 4 * 2 / 7)
    with pytest.raises(ValueError, match="positive"):
        weighted([(0, schema_cooccurrence)])


def test_a_constant_profile_discriminates_nothing() -> None:
    constant = [[FUN, FUN], [FUN, FUN], [FUN]]
    honest = [[FUN, FUN_AND_VALUE], [GREEN, GREEN]]
    assert consistency(constant[0]) == 1
    assert resemblance(constant) == pytest.approx(1)
    assert resemblance(honest) == pytest.approx(0)
    assert [agreement(profiles) for profiles in honest] == pytest.approx([1 / 2, 1])


def test_nothing_to_measure() -> None:
    with pytest.raises(ValueError, match="at least one"):
        consistency([])
    with pytest.raises(ValueError, match="two users"):
        resemblance([[FUN], []])


dimensions = st.lists(st.sampled_from(CONSUMER.names), min_size=1, max_size=4, unique=True)
profiles = st.lists(dimensions.map(lambda ds: profile(*((d, d) for d in ds))), min_size=1, max_size=6)


@given(profiles)
def test_bounds_and_symmetry(some: list[Profile]) -> None:
    matrix = schema_cooccurrence(some)
    assert np.allclose(matrix, matrix.T)
    assert np.allclose(np.diag(matrix), 1)
    assert 1 / len(some) - 1e-12 <= consistency(some) <= 1 + 1e-12
