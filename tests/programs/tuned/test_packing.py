"""Packed rows: layout and visibility."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from programs.tuned.packing import pack

IDS = st.lists(st.integers(0, 99), min_size=1, max_size=6)


@given(IDS, st.lists(IDS, max_size=4))
def test_each_suffix_sees_the_prefix_and_itself_as_if_alone(prefix: list[int], suffixes: list[list[int]]) -> None:
    packed = pack(prefix, suffixes)
    for suffix, end in zip(suffixes, packed.ends.tolist(), strict=True):
        seen = packed.visible[end].nonzero()[0]
        assert packed.ids[seen].tolist() == [*prefix, *suffix]
        assert packed.positions[seen].tolist() == list(range(len(prefix) + len(suffix)))


@pytest.mark.parametrize(("prefix", "suffixes"), [([], [[1]]), ([1], [[2], []])])
def test_nothing_is_packed_of_nothing(prefix: list[int], suffixes: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="at least one token"):
        pack(prefix, suffixes)
