"""The cheapest mix that loses little."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from evaluate.stats.cheapest import cheapest_mix


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


def test_many_users_take_little_memory_and_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values = {name: series(list((rng.random(3000) < 0.5).astype(float))) for name in ("dear", "cheap")}
    cost = {"dear": 9.0, "cheap": 1.0}
    tracemalloc.start()
    try:
        found = cheapest_mix(values, cost, "dollars", "HR@5", 0.02, 0.95)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 << 20  # all 4,000 resamples at once take 190 MB
    monkeypatch.setattr("evaluate.stats.cheapest._CELLS_PER_BATCH", 1 << 30)
    at_once = cheapest_mix(values, cost, "dollars", "HR@5", 0.02, 0.95)
    assert [loss.upper for loss in found.losses.values()] == pytest.approx(
        [loss.upper for loss in at_once.losses.values()], rel=1e-12
    )


def test_a_mix_of_unknown_price_does_not_beat_a_known_one() -> None:
    same = series([1.0, 0.0] * 100)
    found = cheapest_mix({"a": same, "b": same}, {"a": None, "b": 5.0}, "dollars", "HR@5", 0.02, 0.95)
    assert found.chosen == "b"
