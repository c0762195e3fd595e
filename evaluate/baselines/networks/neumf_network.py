"""The network of NeuMF, and its training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evaluate.baselines.networks.batches import shuffled_batches
from evaluate.baselines.networks.dev_ndcg import target_ndcg
from evaluate.baselines.networks.epochs import (
    reproducible,
    take_steps,
    train_epochs,
)
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.held_out import hold_out_last
from evaluate.baselines.networks.interactions import Pairs
from evaluate.baselines.networks.neumf_settings import NeuMFSettings
from programs.runtime.device import best_device
from programs.runtime.one_thread import one_thread

_AGAINST = 100
"""Sampled items that a held-out item is ranked among."""


class NeuMFNetwork(nn.Module):
    """A product of two vectors and a network over two others, joined by one output unit (He et al., eq. 12).

    Users and items are given by their vectors, so that a user outside the fit can have one, too.
    """

    def __init__(self, users: int, items: int, settings: NeuMFSettings) -> None:
        super().__init__()
        size, wide = settings.factors, settings.layers[0] // 2
        self.user, self.item = nn.Embedding(users, size + wide), nn.Embedding(items, size + wide)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.01)
        self.size = size
        layers: list[nn.Module] = []
        for before, after in zip(settings.layers, settings.layers[1:], strict=False):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.deep = nn.Sequential(*layers)
        self.joined = nn.Linear(size + settings.layers[-1], 1)

    def forward(self, user: Tensor, rows: Tensor) -> Tensor:
        """Logits of n pairs, shape (n,).

        Args:
            user: Shape (n, d): vectors of the users.
            rows: Shape (n,): items.
        """
        item = self.item(rows)
        product = user[:, : self.size] * item[:, : self.size]
        deep = self.deep(torch.cat([user[:, self.size :], item[:, self.size :]], dim=1))
        return cast(Tensor, self.joined(torch.cat([product, deep], dim=1))[:, 0])

    @one_thread()
    @torch.no_grad()
    def scores(self, vector: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """Logits of n items for one user, shape (n,)."""
        device = self.item.weight.device
        user = torch.from_numpy(vector).to(device).expand(len(rows), -1)
        return np.asarray(self(user, torch.from_numpy(rows).to(device)).double().cpu().numpy())


def train_neumf(
    histories: Sequence[NDArray[np.int64]], items: int, settings: NeuMFSettings, plan: FitPlan
) -> NeuMFNetwork:
    """Train with negatives drawn anew in every epoch; stops where the NDCG of held-out items is best.

    Args:
        histories: Rows of the items of every user, each item once.
        items: Number of items.
    """
    with reproducible(plan.seed):
        device = best_device()
        network = NeuMFNetwork(len(histories), items, settings).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.rate)
        rng = np.random.default_rng(plan.seed)
        training, users = hold_out_last(histories, settings.validation, rng)
        held_out = np.array(users, dtype=np.int64), among_others(histories, users, items, rng)
        pairs = Pairs(training, items)

        def losses(rng: np.random.Generator) -> Iterator[Tensor]:
            others = np.repeat(pairs.users, settings.negatives)
            users = np.concatenate([pairs.users, others])
            rows = np.concatenate([pairs.rows, pairs.negatives(others, rng)])
            labels = torch.zeros(len(users))
            labels[: len(pairs.users)] = 1
            who, what = torch.from_numpy(users), torch.from_numpy(rows)
            for numbers in shuffled_batches(len(users), settings.batch, rng):
                batch = torch.from_numpy(numbers)
                user, item = network.user(who[batch].to(device)), what[batch].to(device)
                loss = functional.binary_cross_entropy_with_logits(network(user, item), labels[batch].to(device))
                squares = user.square().sum() + network.item(item).square().sum()
                yield loss + settings.penalty * squares / len(batch)

        def one_epoch(number: int, rng: np.random.Generator) -> float:
            return take_steps(optimizer, losses(rng))

        def dev_score() -> float:
            users, candidates = (torch.from_numpy(part).to(device) for part in held_out)
            vectors = network.user(users).repeat_interleave(candidates.shape[1], dim=0)
            scores = network(vectors, candidates.reshape(-1)).reshape(candidates.shape)
            return float(target_ndcg(scores, torch.zeros_like(users)).mean())

        train_epochs(network, optimizer, one_epoch, dev_score if users else None, plan)
    return network


def among_others(
    histories: Sequence[NDArray[np.int64]], users: Sequence[int], items: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """The last item of each user, followed by sampled ones; shape (users, 1 + others)."""
    candidates = rng.integers(items, size=(len(users), _AGAINST + 1))
    candidates[:, 0] = [histories[user][-1] for user in users]
    return candidates
