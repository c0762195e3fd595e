"""Stage 1 of A-LLMRec: what it learns from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from evaluate.baselines.networks.fit_plan import FitPlan
from programs.runtime.errors import InputError

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from evaluate.baselines.networks.alignment import DEV_SHARE, Positions, align  # noqa: E402 - needs torch

USERS, ITEMS = 200, 12


def positions() -> Positions:
    rng = np.random.default_rng(1)
    vectors = [rng.normal(size=shape).astype(np.float32) for shape in ((USERS, 4), (ITEMS, 4), (ITEMS,), (ITEMS, 6))]
    return Positions(vectors[0], rng.integers(ITEMS, size=USERS), *vectors[1:])


def weights(pairs: Positions) -> list[NDArray[np.float32]]:
    network = align(pairs, 3, FitPlan("stage 1", 1, 1, 0), batch=16, rate=0.01)
    return [value.numpy() for value in network.state_dict().values()]


def test_held_out_positions_are_in_no_step() -> None:
    """After one epoch the weights are the same whatever is held out, and others if a learned position is another."""
    pairs = positions()
    held_out, learned = np.split(np.random.default_rng(0).permutation(USERS), [int(DEV_SHARE * USERS)])

    def changed(places: NDArray[np.int64]) -> list[NDArray[np.float32]]:
        states, targets = pairs.states.copy(), pairs.targets.copy()
        states[places] += 1
        targets[places] = (targets[places] + 1) % ITEMS
        return weights(replace(pairs, states=states, targets=targets))

    for one, other in zip(changed(held_out), weights(pairs), strict=True):
        np.testing.assert_array_equal(one, other)
    assert any((one != other).any() for one, other in zip(changed(learned[:1]), weights(pairs), strict=True))


@pytest.mark.parametrize("count", [0, 1])
def test_data_in_which_nothing_follows_are_refused(count: int) -> None:
    pairs = positions()
    with pytest.raises(InputError, match=f"stage 1: .* have {count} such items; it needs two"):
        weights(replace(pairs, states=pairs.states[:count], targets=pairs.targets[:count]))
