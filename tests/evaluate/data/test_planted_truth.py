"""What the planted motivations are worth, and that they are the demo store's alone."""

from __future__ import annotations

import pytest

import mllm3rec as m3
from programs.runtime.errors import InputError
from tests.support.datasets import make_dataset


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoder that needs no weights."""
    monkeypatch.setenv("MLLM3REC_ENCODER", "hashing")


def test_a_perfect_profile_ranks_far_above_chance() -> None:
    cases = m3.draw_cases(m3.load_dataset("demo"), part="test", users=100, negatives=19)
    found = m3.evaluate(cases, "planted-truth", weight=0.7)
    assert found.metrics["HR@5"].low > 0.5
    assert found.components["mar"]["HR@5"].mean > found.components["prior"]["HR@5"].mean + 0.2


def test_other_data_have_no_planted_motivations() -> None:
    data = make_dataset({f"u{n}": [("a", 5, 1), (f"b{n}", 5, 2)] for n in range(5)})
    with pytest.raises(InputError, match="only the demo store has planted motivations, not 'hand'"):
        m3.evaluate(m3.draw_cases(data, part="all", negatives=1), "planted-truth")
