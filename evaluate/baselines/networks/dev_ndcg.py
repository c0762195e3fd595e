"""NDCG of held-out items, by which the best epoch is chosen; needs torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluate.baselines.networks.interactions import HistoryRows, LastItems


def target_ndcg(scores: Tensor, targets: Tensor) -> Tensor:
    """1 / log2(1 + rank) of the target of each of b lists, shape (b,).

    Items of equal score share their mean rank. NaN where the target's score is no finite number.

    Args:
        scores: Shape (b, n).
        targets: Column of each target, shape (b,).
    """
    own = scores.gather(1, targets[:, None])
    better, equal = (scores > own).sum(dim=1), (scores == own).sum(dim=1)
    found = 1 / torch.log2(2.0 + better + (equal - 1) / 2)
    return torch.where(own[:, 0].isfinite(), found, torch.nan)


def ndcg_among_new(
    held_out: LastItems, histories: Sequence[HistoryRows], scores_of: Callable[[NDArray[np.int64]], Tensor], size: int
) -> float:
    """Mean NDCG of held-out items among all items that are not in the user's history.

    Args:
        histories: Of every user, without what is held out.
        scores_of: Gives new scores of all items for u users, shape (u, items).
        size: Users scored at a time.
    """
    total = 0.0
    for start in range(0, len(held_out.users), size):
        users = held_out.users[start : start + size]
        scores = scores_of(users)
        for row, user in zip(scores, users.tolist(), strict=True):
            row[torch.from_numpy(histories[user])] = -torch.inf
        targets = torch.from_numpy(held_out.targets[start : start + size]).to(scores.device)
        total += float(target_ndcg(scores, targets).sum())
    return total / len(held_out.users)
