"""The forecast of what a grid will cost."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.experiments.grid import Mix
from evaluate.experiments.grid_forecast import MeasuredMix, SearchForecast, Work, forecast_grid, sample_of
from signatures.rows import Case
from signatures.types import Interaction


def test_shared_work_is_forecast_once() -> None:
    mixes = [Mix("a", "a", "a", "a"), Mix("a", "a", "b", "b"), Mix("b", "a", "b", "b")]
    one = MeasuredMix(
        per_user={"mope": Work(calls=2, tokens_in=100, usd=0.1), "mar": Work(calls=1, tokens_in=50, usd=0.2)},
        per_product=Work(calls=1, tokens_in=10, usd=0.01),
    )
    found = forecast_grid(mixes, {mix.label: one for mix in mixes}, users=10, products=100)
    alone = 10 * 100 + 10 * 50 + 100 * 10
    assert [f.alone.tokens_in for f in found] == [alone] * 3
    # The second shares MOPE and MOTE with the first, the third MOTE only.
    assert [f.marginal.tokens_in for f in found] == [alone, 500, 1500]
    assert [f.marginal.usd for f in found] == [pytest.approx(4.0), pytest.approx(2.0), pytest.approx(3.0)]


def test_dollars_of_a_forecast_are_unknown_where_a_price_is() -> None:
    one = MeasuredMix(per_user={"mope": Work(usd=None), "mar": Work(usd=1.0)}, per_product=Work())
    (found,) = forecast_grid([Mix("a", "a", "a", "a")], {"a_a_a": one}, 2, 2)
    assert found.alone.usd is None


def test_the_measured_users_have_histories_as_long_as_those_of_all() -> None:
    cases = [
        Case(user_id=f"u{n}", history=tuple(Interaction(item_id=f"i{k}") for k in range(n)), candidates=("x",))
        for n in range(1, 101)
    ]
    lengths = [len(case.history) for case in sample_of(cases, 5)]
    assert len(lengths) == 5
    assert abs(np.mean(lengths) - 50.5) < 1
    assert len(sample_of(cases[:2], 5)) == 2


def test_a_search_is_bounded_by_its_dearest_mixes_and_by_the_whole_grid() -> None:
    cheap = MeasuredMix(per_user={"mope": Work(calls=1), "mar": Work(calls=1)}, per_product=Work())
    dear = MeasuredMix(per_user={"mope": Work(calls=1), "mar": Work(calls=5)}, per_product=Work())
    mixes = [Mix("a", "a", mar, mar) for mar in ("a", "b", "c")]
    found = forecast_grid(mixes, dict(zip((mix.label for mix in mixes), (cheap, dear, cheap), strict=True)), 10, 0)
    assert [SearchForecast.of(n, found).most.calls for n in (1, 2, 3, 9)] == [60, 80, 80, 80]
    assert SearchForecast.of(9, found).mixes == 3
    unknown = [mix.model_copy(update={"alone": Work(usd=None)}) for mix in found]
    assert SearchForecast.of(1, unknown).most.usd is None, "an unknown price is not zero"
