"""Which users' last items are held out of a fit, to stop its training: one rule for all networks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

ItemSequence = TypeVar("ItemSequence", bound=Sequence[Any] | np.ndarray[Any, Any])


def hold_out_last(
    histories: Sequence[ItemSequence], most: int, rng: np.random.Generator
) -> tuple[list[ItemSequence], list[int]]:
    """Take the last item from at most a tenth of the users, of those with more than two.

    Args:
        histories: Training data, oldest item first; no target of a test user is in it.
        most: Users at most.

    Returns:
        The histories to learn from, and the users whose last item they lack, ascending.

    >>> hold_out_last([["a", "b", "c"]] + [["d"]] * 9, 5, np.random.default_rng(0))
    ([['a', 'b'], ['d'], ['d'], ['d'], ['d'], ['d'], ['d'], ['d'], ['d'], ['d']], [0])
    """
    long = [user for user, own in enumerate(histories) if len(own) > 2]
    users = sorted(rng.permutation(long)[: min(most, len(histories) // 10)].astype(int).tolist())
    training: list[Any] = list(histories)
    for user in users:
        training[user] = histories[user][:-1]
    return training, users
