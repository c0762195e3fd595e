"""The paper's costs, recomputed from counted tokens."""

from __future__ import annotations

import pytest

from evaluate.paper.published_costs import recompute
from evaluate.runs.costs import cost_of
from programs.lm.prices import price_table
from tests.support.grids import call


def test_table_7_is_recomputed_by_hand() -> None:
    calls = [call("mope", tokens_in=1000, tokens_out=100), call("mar", tokens_in=2000, tokens_out=200)]
    calls += [call("mote", tokens_in=500, tokens_out=20) for _ in range(10)]
    cost = cost_of(calls, users=1, pairs=10, products=10, population_users=1, catalogue=1)
    found = {one.deployment: one for one in recompute(cost, price_table())}
    # gpt-3.5-turbo: 0.50 in, 1.50 out; gpt-4o: 2.50 in, 10 out; per million.
    mope, mote = (1000 * 0.5 + 100 * 1.5) / 1e6, (500 * 0.5 + 20 * 1.5) / 1e6
    mar = (2000 * 2.5 + 200 * 10) / 1e6
    assert found["4o & 3.5"].per_list == pytest.approx(mope + mar + 10 * mote)
    assert found["4o & 3.5"].per_pair == pytest.approx((mope + mar) / 10 + mote)
    assert {name: float(usd) for name, usd in found["gpt-4-turbo"].published.items()} == {
        "Beauty": 0.1,
        "Sports": 0.087,
        "Toys": 0.09,
    }
    assert recompute(cost_of([], 0, 0, 0, 1, 1), price_table()) == []
