"""The variance split by hand, on simulated components, and as an identity with the plain standard error."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluate.stats.variance import VarianceComponent, VarianceSplit, split_variance
from programs.runtime.errors import InputError


def long(cube: np.ndarray) -> pd.DataFrame:
    """Rows of an array of shape (users, draws, seeds)."""
    rows = [(f"u{u}", d, s, float(cube[u, d, s])) for u, d, s in np.ndindex(cube.shape)]
    return pd.DataFrame(rows, columns=["user", "draw", "seed", "value"])


def simulated(rng: np.random.Generator, shape: tuple[int, int, int], sds: Mapping[str, float]) -> np.ndarray:
    """Crossed random effects; a name says which of u, d, s an effect depends on."""
    cube = np.zeros(shape)
    for name, sd in sds.items():
        cube = cube + rng.normal(0, sd, [size if axis in name else 1 for axis, size in zip("uds", shape, strict=True)])
    return cube


def test_by_hand() -> None:
    cube = np.array([[[0.0, 0.0], [0.0, 1.0]], [[0.5, 1.0], [1.0, 0.5]]])
    # Effects in size: user 1/4; draw and seed 1/8; user:draw and user:seed 1/8; draw:seed 0; the rest 1/4.
    # With two levels everywhere each mean square over 8 is the square of its effect.
    split = split_variance(long(cube))
    assert split.mean == 1 / 2
    assert split.users.variance == pytest.approx(1 / 16 - 1 / 64 - 1 / 64 + 1 / 16)
    assert split.draws == split.seeds == VarianceComponent(variance=1 / 64, sd=1 / 8, share=1 / 8, clipped=False)
    assert split.joint == VarianceComponent(variance=0.0, sd=0.0, share=0.0, clipped=False)
    assert (split.variance, split.sd) == pytest.approx((1 / 8, math.sqrt(1 / 8)))
    assert (split.n_users, split.n_draws, split.n_seeds, split.left_out) == (2, 2, 2, 0)


def test_one_draw_and_one_seed_is_the_standard_error() -> None:
    values = np.random.default_rng(0).random(40)
    split = split_variance(long(values.reshape(-1, 1, 1)))
    assert split.sd == pytest.approx(values.std(ddof=1) / math.sqrt(40))
    assert (split.draws, split.seeds, split.joint) == (None, None, None)
    assert split.users.share == pytest.approx(1.0)


def test_with_one_seed_seeds_are_unknown_and_draws_are_the_spread_of_their_means() -> None:
    cube = simulated(np.random.default_rng(1), (30, 4, 1), {"u": 0.4, "d": 0.2, "ud": 0.2})
    split = split_variance(long(cube))
    assert (split.seeds, split.joint) == (None, None)
    assert split.draws is not None
    assert split.draws.variance == pytest.approx(cube.mean(axis=(0, 2)).var(ddof=1) / 4)
    turned = split_variance(long(cube.transpose(0, 2, 1)))
    assert (turned.seeds, turned.draws, turned.users) == (split.draws, None, split.users)


def test_known_components_are_recovered() -> None:
    rng = np.random.default_rng(7)
    shape = users, draws, seeds = 40, 5, 4
    sds = {"u": 0.4, "d": 0.05, "s": 0.04, "ud": 0.3, "us": 0.2, "ds": 0.03, "uds": 0.3}
    splits = [split_variance(long(simulated(rng, shape, sds))) for _ in range(150)]
    expected = {
        "users": 0.4**2 / users,
        "draws": 0.05**2 / draws + 0.3**2 / (users * draws),
        "seeds": 0.04**2 / seeds + 0.2**2 / (users * seeds),
        "joint": 0.03**2 / (draws * seeds) + 0.3**2 / (users * draws * seeds),
    }
    for name, variance in expected.items():
        found = np.array([getattr(split, name).variance for split in splits])
        assert found.mean() == pytest.approx(variance, abs=4 * found.std() / math.sqrt(len(found))), name
    # Together they are what the mean of such an experiment really varies by.
    means = np.array([split.mean for split in splits])
    assert np.mean([split.variance for split in splits]) == pytest.approx(means.var(ddof=1), rel=0.4)


def test_negatives_drawn_for_each_user_count_as_draws() -> None:
    cube = simulated(np.random.default_rng(3), (400, 3, 2), {"u": 0.1, "ud": 0.4})
    split = split_variance(long(cube))
    assert split.draws is not None
    assert split.seeds is not None
    assert split.draws.variance == pytest.approx(0.4**2 / (400 * 3), rel=0.9)
    assert split.seeds.variance < 1e-12


def test_a_negative_estimate_is_zero_and_says_so() -> None:
    # Users' means agree to the last digit while their cells do not: less spread than the cells explain.
    split = split_variance(long(np.array([[[0.0], [1.0]], [[1.0], [0.0]]])))
    assert split.users == VarianceComponent(variance=0.0, sd=0.0, share=None, clipped=True)
    assert split.variance == 0.0


@pytest.mark.parametrize("value", [0.0, 0.1, 1 / 3])
def test_equal_values_have_no_variance_to_share(value: float) -> None:
    split = split_variance(long(np.full((7, 3, 3), value)))
    nothing = VarianceComponent(variance=0.0, sd=0.0, share=None, clipped=False)
    assert split.users == split.draws == split.seeds == split.joint == nothing


@given(arrays(float, st.tuples(st.integers(2, 5), st.integers(1, 3), st.integers(1, 3)), elements=st.floats(0, 1)))
@settings(max_examples=40)
def test_parts_add_up_whatever_the_data(cube: np.ndarray) -> None:
    split = split_variance(long(cube))
    parts = [part for part in (split.users, split.draws, split.seeds, split.joint) if part is not None]
    assert sum(part.variance for part in parts) == pytest.approx(split.variance)
    assert split.mean == pytest.approx(cube.mean())
    if split.variance > 0:
        assert sum(part.share or 0.0 for part in parts) == pytest.approx(1.0)
    assert VarianceSplit.model_validate_json(split.model_dump_json()) == split
    rows = long(cube).sample(frac=1, random_state=0).to_dict("records")
    assert split_variance(rows) == split


def test_users_that_miss_a_cell_are_left_out_and_counted() -> None:
    cube = np.random.default_rng(0).random((6, 2, 3))
    rows = long(cube)
    fewer = rows.drop(rows.index[(rows.user == "u2") & (rows.draw == 1) & (rows.seed == 0)])
    split = split_variance(fewer)
    assert (split.n_users, split.left_out) == (5, 1)
    whole = split_variance(long(np.delete(cube, 2, axis=0)))
    assert split.model_copy(update={"left_out": 0}) == whole


def test_records_that_cannot_be_split() -> None:
    rows = long(np.random.default_rng(0).random((3, 2, 2)))
    with pytest.raises(InputError, match="column 'seed' is missing"):
        split_variance(rows.drop(columns="seed"))
    with pytest.raises(InputError, match="column 'user' is missing"):
        split_variance([])
    with pytest.raises(InputError, match="user 'u0', draw 0, seed 1 is repeated"):
        split_variance(pd.concat([rows, rows.iloc[[1]]]))
    with pytest.raises(InputError, match="1 of 12 values are not finite"):
        split_variance(rows.assign(value=[math.nan, *rows.value[1:]]))
    with pytest.raises(InputError, match="0 of 3 users have a value in all 2 draws x 2 seeds"):
        split_variance(rows[rows.draw == rows.seed])
    with pytest.raises(InputError, match="1 of 1 users"):
        split_variance(rows[rows.user == "u0"])
