"""Selective calls on four users, worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluate.stats.metrics import per_user
from evaluate.stats.selective import SHARES, selective_curve
from programs.gate import margin
from programs.runtime.errors import InputError

ALONE = per_user({"a": 1, "b": 9, "c": 9, "d": 1})
ASKED = per_user({"a": 9, "b": 1, "c": 1, "d": 1, "only the model": 1})
MARGINS = {"a": 3.0, "b": 0.1, "c": 0.2, "d": 0.3}
CALLS = dict.fromkeys("abcd", 2.0)


def test_the_least_sure_are_asked_first() -> None:
    curve = selective_curve(ALONE, ASKED, MARGINS, CALLS, {"a": None, "b": 0.5, "c": 0.25, "d": 0.0})
    assert [point.asked for point in curve] == [0, 1, 2, 3, 4]
    assert [point.metrics["HR@5"].mean for point in curve] == [0.5, 0.75, 1.0, 1.0, 0.75]
    assert [point.gains["HR@5"].mean for point in curve] == [0, 0.25, 0.5, 0.5, 0.25]
    assert [point.calls for point in curve] == [0, 2, 4, 6, 8]
    assert [point.usd for point in curve] == [0, 0.5, 0.75, 0.75, None]


@given(st.permutations("abcd"))
def test_the_ends_are_the_prior_alone_and_the_model_for_all(order: list[str]) -> None:
    curve = selective_curve(ALONE, ASKED, dict(zip(order, range(4), strict=True)), CALLS, dict.fromkeys("abcd", 0.0))
    assert curve[0].metrics["NDCG@5"].mean == pytest.approx(ALONE["NDCG@5"].mean())
    assert curve[-1].metrics["NDCG@5"].mean == pytest.approx(ASKED.loc[list("abcd"), "NDCG@5"].mean())
    assert [point.share for point in curve] == list(SHARES)


def test_without_common_users_there_is_no_curve() -> None:
    with pytest.raises(InputError, match="both by the prior and with the model"):
        selective_curve(ALONE, ASKED.loc[["only the model"]], {}, {}, {})


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=12), st.floats(0.1, 10), st.floats(-10, 10))
def test_the_margin_does_not_depend_on_the_scale(scores: list[int], factor: float, shift: float) -> None:
    assert margin(scores) >= 0
    assert margin([factor * score + shift for score in scores]) == pytest.approx(margin(scores), abs=1e-3)
