"""The sequence diffusion of DiffuASR: generates the items before a sequence, guided by those that follow."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evaluate.baselines.networks.augmenter_settings import DiffuASRSettings
from evaluate.baselines.networks.batches import shuffled_batches
from evaluate.baselines.networks.diffusion import Diffusion, linear_betas, time_embedding
from evaluate.baselines.networks.epochs import reproducible, take_steps, train_epochs
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.sequence_network import Rows

_LAYERS = 2


class SequenceDenoiser(nn.Module):
    """Predicts the vectors of the generated items from noisy ones: a Transformer over these and the guide.

    Args:
        table: Frozen item vectors, shape (items, d); they are scaled to length sqrt(d), so that noise and data are of
            one size.
    """

    def __init__(self, table: Tensor, settings: DiffuASRSettings) -> None:
        super().__init__()
        size = table.shape[1]
        self.settings = settings
        scaled = functional.normalize(table.detach(), dim=1) * size**0.5
        self.register_buffer("table", scaled, persistent=False)
        self.place = nn.Parameter(torch.randn(settings.generated + settings.guide, size) * 0.02)
        self.time = nn.Linear(size, size)
        block = nn.TransformerEncoderLayer(
            size,
            settings.heads,
            2 * size,
            0.1,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(block, _LAYERS, norm=nn.LayerNorm(size), enable_nested_tensor=False)
        self.out = nn.Linear(size, size)
        betas = linear_betas(settings.steps, 0.1 / settings.steps, min(0.999, 20 / settings.steps))
        self.diffusion = Diffusion(betas)

    def guides(self, following: Sequence[Rows]) -> tuple[Tensor, Tensor]:
        """Vectors of the first items that follow, in their order, and which places are real.

        Training and generation both take their guide from here, so that its order is one and the same.

        Returns:
            Shapes (b, guide, d) and (b, guide).
        """
        rows = np.zeros((len(following), self.settings.guide), dtype=np.int64)
        real = np.zeros(rows.shape, dtype=bool)
        for place, own in enumerate(following):
            first = own[: self.settings.guide]
            rows[place, : len(first)], real[place, : len(first)] = first, True
        where = self.table.device
        known = torch.from_numpy(real).to(where)
        return self.table[torch.from_numpy(rows).to(where)] * known[:, :, None], known

    def forward(self, noisy: Tensor, times: Tensor, guide: Tensor, real: Tensor) -> Tensor:
        """x_0, shape (b, generated, d).

        Args:
            noisy: Shape (b, generated, d).
            times: Shape (b,).
            guide, real: See `guides`.
        """
        tokens = torch.cat([noisy, guide], dim=1) + self.place
        tokens = tokens + self.time(time_embedding(times, noisy.shape[2]))[:, None]
        unread = torch.cat([torch.zeros_like(real[:, :1]).expand(-1, noisy.shape[1]), ~real], dim=1)
        return cast(Tensor, self.out(self.blocks(tokens, src_key_padding_mask=unread)[:, : noisy.shape[1]]))

    def loss(self, first: Tensor, following: Sequence[Rows], times: Tensor, noise: Tensor, guided: Tensor) -> Tensor:
        """Mean squared error of the predicted vectors.

        Args:
            first: Rows of the items to generate, shape (b, generated).
            guided: Which examples see their guide, shape (b,).
        """
        data = self.table[first]
        guide, real = self.guides(following)
        seen = self(self.diffusion.noised(data, times, noise), times, guide, real & guided[:, None])
        return functional.mse_loss(seen, data)

    def can_precede(self, own: Rows) -> bool:
        """Whether there are as many items outside a sequence as are generated before it."""
        return len(self.table) - len(np.unique(own)) >= self.settings.generated

    @torch.no_grad()
    def generate(self, following: Sequence[Rows], noise: Tensor) -> NDArray[np.int64]:
        """Items before each sequence, none of them in it and each once; shape (b, generated).

        Args:
            following: Each lacks at least `generated` items, see `can_precede`.
            noise: Standard normal, shape (b, generated, d).
        """
        guide, real = self.guides(following)
        w = self.settings.guidance

        def model(noisy: Tensor, times: Tensor) -> Tensor:
            guided = self(noisy, times, guide, real)
            return (1 + w) * guided - w * self(noisy, times, guide, torch.zeros_like(real)) if w else guided

        vectors = self.diffusion.sampled(model, noise, self.settings.calls)
        cosines = functional.normalize(vectors, dim=2) @ functional.normalize(self.table, dim=1).T
        found = np.zeros(cosines.shape[:2], dtype=np.int64)
        for place, own in enumerate(following):
            cosines[place][:, torch.from_numpy(own).to(cosines.device)] = -torch.inf
            for number in range(found.shape[1]):
                found[place, number] = int(cosines[place, number].argmax())
                cosines[place, number + 1 :, found[place, number]] = -torch.inf
        return found


def train_denoiser(
    sequences: Sequence[Rows], table: Tensor, settings: DiffuASRSettings, plan: FitPlan
) -> SequenceDenoiser:
    """Train on the beginnings of long sequences; stops by the loss of a tenth of them with fixed times and noise.

    Args:
        sequences: Training sequences.
        table: See `SequenceDenoiser`.
    """
    long = [own for own in sequences if len(own) >= settings.least]
    cut, width = settings.generated, table.shape[1]
    with reproducible(plan.seed):
        network = SequenceDenoiser(table, settings).to(table.device)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.diffusion_rate)
        held_out, training = long[: len(long) // 10], long[len(long) // 10 :]
        times = torch.randint(1, settings.steps + 1, (len(held_out),), device=table.device)
        noise = torch.randn(len(held_out), cut, width, device=table.device)

        def loss_of(some: Sequence[Rows], times: Tensor, noise: Tensor, guided: Tensor) -> Tensor:
            first = torch.from_numpy(np.stack([own[:cut] for own in some])).to(table.device)
            return network.loss(first, [own[cut:] for own in some], times, noise, guided)

        def losses(rng: np.random.Generator) -> Iterator[Tensor]:
            for batch in shuffled_batches(len(training), settings.batch, rng):
                some = [training[place] for place in batch]
                drawn = torch.randint(1, settings.steps + 1, (len(some),), device=table.device)
                guided = torch.rand(len(some), device=table.device) >= settings.unguided
                yield loss_of(some, drawn, torch.randn(len(some), cut, width, device=table.device), guided)

        def one_epoch(number: int, rng: np.random.Generator) -> float:
            return take_steps(optimizer, losses(rng))

        def dev_score() -> float:
            everyone = torch.ones(len(held_out), dtype=torch.bool, device=table.device)
            return -loss_of(held_out, times, noise, everyone).item()

        train_epochs(network, optimizer, one_epoch, dev_score if held_out else None, plan)
    return network
