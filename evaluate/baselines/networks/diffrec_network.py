"""The network of DiffRec, and its training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluate.baselines.networks.diffrec_settings import DiffRecSettings
from evaluate.baselines.networks.diffusion import Diffusion, TimeSampler, linear_variances, time_embedding
from evaluate.baselines.networks.epochs import best_device, reproducible, score_on_one_thread, train_epochs
from evaluate.baselines.networks.held_out import hold_out_last
from evaluate.baselines.networks.interactions import HistoryRows, LastItems
from programs.runtime.events import OnEvent, ignore

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

    @torch.no_grad()
    def scores(self, history: HistoryRows, items: NDArray[np.int64]) -> NDArray[np.float64]:
        """Scores of n items for one user, shape (n,)."""
        score_on_one_thread()
        return np.asarray(self.denoised([history])[0, torch.from_numpy(items)].double().cpu().numpy())


def train_diffrec(
    histories: Sequence[HistoryRows],
    items: int,
    settings: DiffRecSettings,
    seed: int,
    folder: Path | None = None,
    on_event: OnEvent = ignore,
) -> DiffRecNetwork:
    """Train until the NDCG of held-out items among all items stops improving; see `train_epochs`.

    Args:
        histories: Of every user.
        items: Number of items.
    """
    with reproducible(seed):
        network = DiffRecNetwork(items, settings).to(best_device())
        optimizer = torch.optim.AdamW(network.parameters(), lr=settings.rate, weight_decay=0.0, fused=True)
        training, users = hold_out_last(histories, settings.validation, np.random.default_rng(seed))
        held_out = LastItems.of(histories, users)

        def one_epoch(number: int, rng: np.random.Generator) -> float:
            losses = []
            order = rng.permutation(len(training))
            for start in range(0, len(order), settings.batch):
                loss = network.loss(network.rows([training[user] for user in order[start : start + settings.batch]]))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            return float(np.mean(losses))

        train_epochs(
            network,
            optimizer,
            one_epoch,
            (lambda: _ndcg(network, training, held_out, settings.batch)) if len(held_out.users) else None,
            seed=seed,
            epochs=settings.epochs,
            patience=settings.patience,
            task=f"fitting {settings.name}",
            folder=folder,
            on_event=on_event,
        )
    return network


def _ndcg(network: DiffRecNetwork, histories: Sequence[HistoryRows], held_out: LastItems, size: int) -> float:
    """Mean NDCG of held-out items among all items that the user has not."""
    total = 0.0
    for start in range(0, len(held_out.users), size):
        own = [histories[user] for user in held_out.users[start : start + size]]
        scores = network.denoised(own)
        for row, history in zip(scores, own, strict=True):
            row[torch.from_numpy(history)] = -torch.inf
        targets = torch.from_numpy(held_out.targets[start : start + size]).to(scores.device)[:, None]
        total += float((1 / torch.log2(2.0 + (scores > scores.gather(1, targets)).sum(dim=1))).sum())
    return total / len(held_out.users)
