"""Batches: every example once, in another order in every epoch."""

from __future__ import annotations

import numpy as np
import pytest

from evaluate.baselines.networks.batches import batches_by_length, shuffled_batches


def test_every_example_is_in_one_batch_and_the_last_batch_is_smaller() -> None:
    found = [batch.tolist() for batch in shuffled_batches(10, 4, np.random.default_rng(0))]
    assert [len(batch) for batch in found] == [4, 4, 2]
    numbers = np.concatenate(found).tolist()
    assert sorted(numbers) == list(range(10)) != numbers
    assert not list(shuffled_batches(0, 4, np.random.default_rng(0)))


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_holds_examples_of_about_equal_length(seed: int) -> None:
    lengths = [9, 1, 5, 5, 1, 9, 5, 1, 9]
    found = [batch.tolist() for batch in batches_by_length(lengths, 3, np.random.default_rng(seed))]
    assert sorted(np.concatenate(found).tolist()) == list(range(9))
    assert all(len({lengths[number] for number in batch}) == 1 for batch in found)


def test_batches_of_lengths_come_in_a_random_order() -> None:
    lengths = list(range(40))
    first = [int(batch[0]) for batch in batches_by_length(lengths, 4, np.random.default_rng(0))]
    assert first != sorted(first)
    assert first != [int(batch[0]) for batch in batches_by_length(lengths, 4, np.random.default_rng(1))]
