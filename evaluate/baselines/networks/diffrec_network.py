"""The network of DiffRec, and its training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluate.baselines.networks.batches import shuffled_batches
from evaluate.baselines.networks.dev_ndcg import ndcg_among_new
from evaluate.baselines.networks.diffrec_settings import DiffRecSettings
from evaluate.baselines.networks.diffusion import Diffusion, TimeSampler, linear_variances, time_embedding
from evaluate.baselines.networks.epochs import (
    reproducible,
    take_steps,
    train_epochs,
)
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.held_out import hold_out_last
from evaluate.baselines.networks.interactions import HistoryRows, LastItems
from programs.runtime.device import best_device
from programs.runtime.one_thread import one_thread

_TIME = 10
"""Width of the embedding of a time."""


class DiffRecNetwork(nn.Module):
    """Predicts a user's row from a noisy one: two linear layers with tanh between them.

    Args:
        items: Width of a row.
    """

    def __init__(self, items: int, settings: DiffRecSettings) -> None:
        super().__init__()
        self.items, self.oldest = items, settings.oldest
        self.time = nn.Linear(_TIME, _TIME)
        self.inner = nn.Linear(items, settings.hidden)
        self.when = nn.Linear(_TIME, settings.hidden, bias=False)
        self.outer = nn.Linear(settings.hidden, items)
        for layer in (self.time, self.inner, self.outer):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)  # torch's own are larger than most values of a row
        nn.init.normal_(self.when.weight, std=(2 / (items + _TIME + settings.hidden)) ** 0.5)
        self.dropout = nn.Dropout(settings.dropout)
        betas = linear_variances(settings.steps, settings.scale * settings.least, settings.scale * settings.most)
        self.diffusion, self.sampler = Diffusion(betas), TimeSampler(settings.steps)

    def forward(self, noisy: Tensor, times: Tensor) -> Tensor:
        """x_0, shape (b, items), of rows x_t and times of shape (b,)."""
        # One linear layer over both side by side; apart, no gradient of the wide rows is computed.
        when = self.when(self.time(time_embedding(times, _TIME)))
        return cast(Tensor, self.outer(torch.tanh(self.inner(self.dropout(noisy)) + when)))

    def rows(self, histories: Sequence[HistoryRows]) -> Tensor:
        """Rows of b users, shape (b, items): no more of them are dense at any time.

        An item's weight grows linearly from `oldest` to 1 with its place in the history (T-DiffRec).
        """
        dense = torch.zeros(len(histories), self.items)
        for row, history in zip(dense, histories, strict=True):
            row[torch.from_numpy(history)] = torch.linspace(1.0, self.oldest, len(history)).flip(0)
        return dense.to(self.outer.bias.device)

    def loss(self, data: Tensor) -> Tensor:
        """Mean squared error weighted by SNR(t - 1) - SNR(t) at times that are drawn by importance."""
        times, weights = self.sampler.draw(len(data))
        predicted = self(self.diffusion.noised(data, times, torch.randn_like(data)), times)
        losses = (predicted - data).square().mean(dim=1) * self.diffusion.loss_weights[times]
        self.sampler.note(times, losses)
        return (losses * weights).mean()

    def denoised(self, histories: Sequence[HistoryRows]) -> Tensor:
        """Scores of all items for b users, shape (b, items): T steps from their rows as they are, without noise."""
        return self.diffusion.denoised(self, self.rows(histories))

    @one_thread()
    @torch.no_grad()
    def scores(self, history: HistoryRows, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores of n items for one user, shape (n,)."""
        return np.asarray(self.denoised([history])[0, torch.from_numpy(items)].double().cpu().numpy())


def train_diffrec(
    histories: Sequence[HistoryRows], items: int, settings: DiffRecSettings, plan: FitPlan
) -> DiffRecNetwork:
    """Train until the NDCG of held-out items among all items stops improving; see `train_epochs`.

    Args:
        histories: Of every user.
        items: Number of items.
    """
    with reproducible(plan.seed):
        network = DiffRecNetwork(items, settings).to(best_device())
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=0.0, fused=True)
        training, users = hold_out_last(histories, settings.validation, np.random.default_rng(plan.seed))
        held_out = LastItems.of(histories, users)

        def one_epoch(number: int, rng: np.random.Generator) -> float:
            batches = shuffled_batches(len(training), settings.batch, rng)
            rows = (network.rows([training[user] for user in batch]) for batch in batches)
            return take_steps(optimizer, (network.loss(some) for some in rows))

        def scores_of(users: NDArray[np.int64]) -> Tensor:
            return network.denoised([training[user] for user in users])

        def dev_score() -> float:
            return ndcg_among_new(held_out, training, scores_of, settings.batch)

        train_epochs(network, optimizer, one_epoch, dev_score if users else None, plan)
    return network
