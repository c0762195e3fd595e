"""The items that stop a training: one rule for all networks."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from evaluate.baselines.networks.held_out import hold_out_last


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), max_size=60), st.integers(0, 9), st.integers(0, 3))
def test_the_last_items_of_a_tenth_at_most_are_not_trained_on(histories: list[list[int]], most: int, seed: int) -> None:
    training, users = hold_out_last(histories, most, np.random.default_rng(seed))
    assert len(users) <= min(most, len(histories) // 10)
    assert users == sorted(set(users))
    for user, history in enumerate(histories):
        if user in users:
            assert len(history) > 2 and training[user] == history[:-1]
        else:
            assert training[user] is history


def test_as_many_as_asked_for_are_held_out_of_long_histories() -> None:
    histories = [np.arange(user, user + 4) for user in range(40)]
    training, users = hold_out_last(histories, 100, np.random.default_rng(0))
    assert len(users) == 4
    assert all(len(training[user]) == 3 for user in users)
