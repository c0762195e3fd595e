"""Which model for which module: grids, costs, effects and the recommendation, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluate.experiments.grid import Grid, Mix, read_grid
from evaluate.experiments.grid_forecast import MeasuredMix, Work, forecast_grid, sample_of
from evaluate.experiments.grid_results import MixRun, front_of, grid_results
from evaluate.paper.published_costs import recompute
from evaluate.runs.costs import cost_of, known_sum
from evaluate.stats.cheapest import cheapest_mix
from programs.lm.ledger import Call
from programs.lm.prices import price_table
from programs.lm.roles import PRESETS
from programs.runtime.errors import InputError
from signatures.rows import Case
from signatures.types import Interaction

GRID = """
mope = ["small", "large"]
mote = ["small"]
mar = ["small", "large"]
metric = "HR@5"
margin = 0.1

[backends.small]
model = "http://127.0.0.1:1/v1#small"

[backends.large]
model = "openai/gpt-4.1"
temperature = 0.5
logprobs = false
"""


def grid(tmp_path: Path, text: str = GRID) -> Grid:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return read_grid(path)


def test_a_grid_is_every_mix_with_shared_work_side_by_side(tmp_path: Path) -> None:
    found = grid(tmp_path)
    assert [mix.label for mix in found.mixes()] == [
        "small_small_small",
        "small_small_large",
        "large_small_small",
        "large_small_large",
    ]
    assert found.reference_label == "small_small_small"
    roles = found.roles(Mix("small", "small", "large", "large"), PRESETS["local"])
    assert (roles.mope.model, roles.mope.adapter) == ("http://127.0.0.1:1/v1#small", "compact")
    assert (roles.mar.model, roles.mar.adapter, roles.mar.temperature) == ("openai/gpt-4.1", "json", 0.5)
    assert not roles.mar.logprobs
    assert roles.mope.temperature == PRESETS["local"].mope.temperature


def test_a_judge_of_its_own_is_in_the_label(tmp_path: Path) -> None:
    found = grid(tmp_path, GRID.replace('metric = "HR@5"', 'judge = ["large"]'))
    assert [mix.label for mix in found.mixes()][:2] == ["small_small_small_large", "small_small_large"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('mar = ["small", "large"]', 'mar = ["huge"]', "mar: no backend 'huge'; there are small, large"),
        ('metric = "HR@5"', 'metric = "MRR"', "metric"),
        ('metric = "HR@5"', 'reference = "a_b_c"', "reference: no mix 'a_b_c'"),
        ("[backends.small]", '[backends."a/b"]', "backends"),
        ("margin = 0.1", "margin = 1.5", "margin"),
        ("margin = 0.1", "margin = ", "not a readable TOML file"),
    ],
)
def test_a_file_that_is_no_grid_says_where(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(InputError) as found:
        grid(tmp_path, GRID.replace(old, new))
    assert "grid.toml" in str(found.value)
    assert message in str(found.value)


# Cost


def call(role: str, usd: float | None = 0.1, **facts: object) -> Call:
    return Call.model_validate(
        {"role": role, "model": "m", "tokens_in": 10, "tokens_out": 2, "usd": usd, "seconds": 1.0} | facts
    )


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


def test_a_failed_call_is_counted_apart() -> None:
    (mar,) = cost_of([call("mar"), call("mar", None, failed=True, tokens_in=0)], 1, 10, 0, 1, 1).roles
    assert (mar.calls, mar.failed, mar.usd) == (1, 1, pytest.approx(0.1))


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


# Recommendation


def series(values: list[float]) -> pd.Series[float]:
    return pd.Series(values, index=[f"u{i:03}" for i in range(len(values))], dtype=float)


def test_the_cheapest_mix_that_surely_loses_little_is_recommended() -> None:
    good = [1.0, 0.0] * 100
    values = {"dear": series(good), "cheap": series(good), "bad": series([0.0] * 200)}
    found = cheapest_mix(values, {"dear": 9.0, "cheap": 1.0, "bad": 0.1}, "dollars", "HR@5", 0.02, 0.95)
    assert found.chosen == "cheap"
    assert 0 < found.losses["cheap"].upper < 0.02
    assert found.losses["bad"].mean == 0.5
    assert "cheap is the cheapest mix" in str(found)


def test_with_few_users_nothing_is_recommended_and_the_users_needed_are_said() -> None:
    rng = np.random.default_rng(0)
    best = rng.random(20) < 0.6
    near = np.where(rng.random(20) < 0.8, best, rng.random(20) < 0.55)
    values = {"dear": series(list(best.astype(float))), "cheap": series(list(near.astype(float)))}
    found = cheapest_mix(values, {"dear": 9.0, "cheap": 1.0}, "dollars", "HR@5", 0.02, 0.95)
    assert found.chosen is None
    assert found.users_needed is not None and found.users_needed > 50
    assert "not enough users to tell (n=20)" in str(found)


@pytest.mark.parametrize("n", [5, 20, 40])
def test_a_mix_that_loses_too_much_is_rarely_recommended(n: int) -> None:
    wrong = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        best = (rng.random(n) < 0.6).astype(float)
        worse = np.where(rng.random(n) < 0.1, 0.0, best)  # loses .06
        values = {"dear": series(list(best)), "cheap": series(list(worse))}
        wrong += cheapest_mix(values, {"dear": 9.0, "cheap": 1.0}, "dollars", "HR@5", 0.02, 0.95).chosen == "cheap"
    assert wrong <= 10


def test_a_mix_of_unknown_price_does_not_beat_a_known_one() -> None:
    same = series([1.0, 0.0] * 100)
    found = cheapest_mix({"a": same, "b": same}, {"a": None, "b": 5.0}, "dollars", "HR@5", 0.02, 0.95)
    assert found.chosen == "b"


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=3), st.tuples(st.floats(0, 1), st.floats(0, 9)), min_size=1)
)
def test_nothing_on_the_front_is_beaten(points: dict[str, tuple[float, float]]) -> None:
    quality, cost = ({k: v[i] for k, v in points.items()} for i in (0, 1))
    front = front_of(quality, dict(cost))
    assert front
    for label in front:
        assert not any(cost[o] <= cost[label] and quality[o] > quality[label] for o in points)
    for label in set(points) - set(front):
        assert any(cost[o] <= cost[label] and quality[o] >= quality[label] for o in front)


def test_the_effect_of_a_role_is_the_mean_over_pairs_that_differ_in_it_alone(tmp_path: Path) -> None:
    found = grid(tmp_path)
    ranks = {
        "small_small_small": {"u": 9, "v": 9, "w": 1},
        "small_small_large": {"u": 1, "v": 9, "w": 1},
        "large_small_small": {"u": 9, "v": 1, "w": 1},
        "large_small_large": {"u": 1, "v": 1, "w": 1},
    }
    runs = []
    for mix in found.mixes():
        usd = {"small": 0.1, "large": 0.7}
        calls = [call("mope", usd[mix.mope]), call("mar", usd[mix.mar])]
        runs.append(MixRun(mix, ranks[mix.label], {}, cost_of(calls, 1, 10, 0, 5, 5)))
    said = grid_results(found, runs, 30)
    effects = {(e.role, e.before, e.after): e for e in said.effects}
    assert set(effects) == {("mope", "small", "large"), ("mar", "small", "large")}
    mar = effects["mar", "small", "large"]
    assert (mar.mixes, mar.gain.mean, mar.gain.n) == (2, pytest.approx(1 / 3), 3)
    assert mar.usd_per_user == pytest.approx(0.6)
    assert said.front == ("small_small_small", "small_small_large", "large_small_large")
    assert [row.label for row in said.rows if not row.against] == ["small_small_small"]
    assert said.rows[3].against["HR@5"].mean == pytest.approx(2 / 3)


def test_a_mix_that_was_given_up_is_listed_with_bounds_and_compared_with_nothing(tmp_path: Path) -> None:
    found = grid(tmp_path)
    mixes = list(found.mixes())
    whole = [MixRun(mix, {"u": 1, "v": 2}, {}, cost_of([], 2, 20, 0, 5, 5)) for mix in mixes[:2]]
    broken = MixRun(mixes[2], {"u": 1}, {}, cost_of([], 1, 10, 0, 5, 5), unresolved=1, stopped="the server is gone")
    said = grid_results(found, [*whole, broken], 30)
    row = said.rows[2]
    assert (row.users, row.unresolved, row.stopped) == (1, 1, "the server is gone")
    assert (row.bounds["HR@5"].low, row.bounds["HR@5"].high) == (0.5, 1.0)
    assert said.recommendation is not None
    assert set(said.recommendation.losses) == {mix.label for mix in mixes[:2]}


# Forecast


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
