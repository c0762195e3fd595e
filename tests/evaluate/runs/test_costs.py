"""Costs per user, pair and population, by hand."""

from __future__ import annotations

import pytest

from evaluate.runs.costs import cost_of, known_sum, stand_alone_usage
from tests.support.grids import call


def test_costs_per_user_pair_and_population_by_hand() -> None:
    calls = [call("mope"), call("mar"), call("mar"), *[call("mote", 0.02) for _ in range(5)]]
    cost = cost_of(calls, users=2, pairs=20, products=5, population_users=100, catalogue=1000)
    assert cost.per_user == pytest.approx(0.3 / 2)
    assert cost.per_product == pytest.approx(0.02)
    # MOPE and MAR over the ten pairs of a list, MOTE whole.
    assert cost.per_pair == pytest.approx(0.15 / 10 + 0.02)
    assert cost.per_thousand == pytest.approx(150)
    assert cost.population == pytest.approx(100 * 0.15 + 1000 * 0.02)
    assert cost.usd == cost.billed_usd == pytest.approx(0.4)


def test_a_stored_answer_is_in_the_stand_alone_cost_and_not_billed() -> None:
    cost = cost_of([call("mope"), call("mope", hit=True, seconds=0.0)], 2, 20, 0, 10, 10)
    (mope,) = cost.roles
    assert (mope.calls, mope.stored, mope.tokens_in) == (2, 1, 20)
    assert mope.usd == pytest.approx(0.2)
    assert mope.billed_usd == pytest.approx(0.1)
    assert mope.p50 == 1.0, "a stored answer says nothing about latency"


def test_a_product_shown_to_many_users_is_paid_once() -> None:
    calls = [call("mote", about="x"), call("mote", about="x", hit=True), call("mote", about="y", hit=True)]
    calls += [call("mote", about="y", hit=True), call("mope", hit=True), call("mope", hit=True)]
    mote, mope = cost_of(calls, 2, 20, 2, 10, 10).roles
    assert (mote.calls, mote.stored, mote.usd) == (2, 1, pytest.approx(0.2))
    assert mope.calls == 2, "questions about nothing in particular are questions of their own"


def test_unknown_prices_stay_unknown() -> None:
    cost = cost_of([call("mope", None), call("mar")], 1, 10, 0, 10, 10)
    assert cost.usd is None
    assert cost.per_user is None
    assert cost.population is None
    assert [role.usd for role in cost.roles] == [None, pytest.approx(0.1)]
    assert known_sum([]) == 0


def test_the_stand_alone_cost_is_that_of_answers_alone() -> None:
    calls = [call("mar", 0.9, failed=True, seconds=600.0), call("mar"), call("mope", 0.5, in_flight=True)]
    found = stand_alone_usage(calls)
    assert {role: (usage.calls, usage.usd, usage.seconds) for role, usage in found.items()} == {"mar": (1, 0.1, 1.0)}
    assert cost_of(calls, 1, 10, 0, 1, 1).roles[0].usd == found["mar"].usd


def test_a_failed_call_is_counted_apart() -> None:
    (mar,) = cost_of([call("mar"), call("mar", None, failed=True, tokens_in=0)], 1, 10, 0, 1, 1).roles
    assert (mar.calls, mar.failed, mar.usd) == (1, 1, pytest.approx(0.1))
