"""Results of a grid: Pareto front, effects of a role, mixes that were stopped."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluate.experiments.grid_results import MixRun, front_of, grid_results
from evaluate.experiments.grid_tab import mix_table, unit_cost_table
from evaluate.report.accuracy import nobody_first_values
from evaluate.runs.costs import cost_of
from tests.support.grids import call, grid
from tests.support.small_study import study


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


def test_the_prior_alone_is_beside_the_mixes(tmp_path: Path) -> None:
    found = grid(tmp_path)
    mixes = list(found.mixes())
    prior = {"u": 1, "v": 9}
    runs = [MixRun(mix, {"u": 1, "v": 2}, {}, cost_of([], 2, 20, 0, 5, 5), prior_ranks=prior) for mix in mixes]
    runs[0] = MixRun(mixes[0], {"u": 1}, {}, cost_of([], 1, 10, 0, 5, 5), 1, prior_ranks={"u": 1})
    said = grid_results(found, runs, 30)
    assert (said.prior["HR@5"].mean, said.prior_users) == (0.5, 2)
    accuracy, costs = mix_table(said), unit_cost_table(said)
    assert [cell.text for cell in accuracy.rows[-1].cells][:2] == ["prior alone", "0.500"]
    assert [cell.text for cell in costs.rows[-1].cells][:3] == ["prior alone", "$0.0000", "$0.0000"]
    without = grid_results(found, [MixRun(mix, {"u": 1}, {}, cost_of([], 1, 10, 0, 5, 5)) for mix in mixes], 30)
    assert (without.prior, len(mix_table(without).rows)) == ({}, len(mixes))
    assert {(one.gain.low, one.gain.high) for one in without.effects} == {(0, 0)}  # a gain of 0 is no share of misses


def test_cold_lists_have_the_row_of_nobody_has_it_first_as_every_table_has(tmp_path: Path) -> None:
    found = grid(tmp_path)
    runs = [MixRun(mix, {"u": 1}, {}, cost_of([], 1, 10, 0, 5, 5)) for mix in found.mixes()]
    said = grid_results(found, runs, 10)
    protocol = study().protocols[0]
    assert nobody_first_values(protocol, 10) is None
    as_cold = {"protocol": protocol.cases[0].protocol.model_copy(update={"setting": "item-cold"})}
    cold = dataclasses.replace(protocol, cases={0: dataclasses.replace(protocol.cases[0], **as_cold)})
    values = nobody_first_values(cold, 10)
    assert values is not None and nobody_first_values(cold, 11) is None
    row = mix_table(said, values).rows[-1]
    assert [cell.text for cell in row.cells][:2] == ["nobody-has-it-first", f"{values['HR@5'].mean():.3f}"]
    assert (row.kind, [cell.text for cell in row.cells][8]) == ("chance", str(len(values)))


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
