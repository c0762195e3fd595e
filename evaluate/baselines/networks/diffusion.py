"""Gaussian diffusion: noise schedules, noising, posterior means, DDIM steps, and importance sampling of times."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Predictor = Callable[[Tensor, Tensor], Tensor]
"""Predicts x_0, shape (n, ...), from x_t and times of shape (n,)."""


def linear_betas(steps: int, first: float, last: float) -> NDArray[np.float64]:
    """β_1 to β_T at equal distances, as in DDPM."""
    return np.linspace(first, last, steps)


def linear_variances(steps: int, least: float, most: float, first_beta: float = 1e-5) -> NDArray[np.float64]:
    """β_1 to β_T such that the variances 1 - ᾱ_t grow linearly (DiffRec, eq. 4), and β_1 is fixed as in its code."""
    kept = 1 - np.linspace(least, most, steps)
    betas = 1 - kept / np.concatenate([[1.0], kept[:-1]])
    betas[0] = first_beta
    return betas


class Diffusion(nn.Module):
    """A diffusion of T steps; time 0 is the data, with α_t = 1 - β_t and ᾱ_t = α_1 ... α_t.

    Args:
        betas: β_1 to β_T, between 0 and 1.
    """

    roots: Tensor
    deviations: Tensor
    from_data: Tensor
    from_noisy: Tensor
    loss_weights: Tensor

    def __init__(self, betas: NDArray[np.float64]) -> None:
        super().__init__()
        self.steps = len(betas)
        kept = np.concatenate([[1.0], np.cumprod(1 - betas)])  # ᾱ_0 to ᾱ_T
        before, now = kept[:-1], kept[1:]
        ratios = kept[1:] / (1 - kept[1:])
        columns = {
            "roots": np.sqrt(kept),
            "deviations": np.sqrt(1 - kept),
            "from_data": np.concatenate([[0.0], np.sqrt(before) * betas / (1 - now)]),
            "from_noisy": np.concatenate([[0.0], np.sqrt(1 - betas) * (1 - before) / (1 - now)]),
            "loss_weights": np.concatenate([[0.0, 1.0], ratios[:-1] - ratios[1:]]),
        }
        for name, values in columns.items():
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def noised(self, data: Tensor, times: Tensor, noise: Tensor) -> Tensor:
        """x_t = sqrt(ᾱ_t) x_0 + sqrt(1 - ᾱ_t) ε for n rows (DDPM, eq. 4)."""
        return _at(self.roots, times, data) * data + _at(self.deviations, times, data) * noise

    def posterior_mean(self, data: Tensor, noisy: Tensor, times: Tensor) -> Tensor:
        """The mean of x_{t-1} given x_0 and x_t (DDPM, eq. 7)."""
        return _at(self.from_data, times, data) * data + _at(self.from_noisy, times, data) * noisy

    def ddim_step(self, data: Tensor, noisy: Tensor, times: Tensor, towards: Tensor) -> Tensor:
        """x_s for s < t without fresh noise: the noise in x_t, given x_0, is kept (DDIM, eq. 12 with σ = 0)."""
        noise = (noisy - _at(self.roots, times, data) * data) / _at(self.deviations, times, data)
        return self.noised(data, towards, noise)

    def denoised(self, model: Predictor, noisy: Tensor) -> Tensor:
        """x_0 from rows that count as x_T, by all T posterior means."""
        for time in range(self.steps, 0, -1):
            times = torch.full((len(noisy),), time, device=noisy.device)
            noisy = self.posterior_mean(model(noisy, times), noisy, times)
        return noisy

    def sampled(self, model: Predictor, noise: Tensor, calls: int) -> Tensor:
        """x_0 from noise by DDIM, with so many calls of the model at most."""
        chosen = np.unique(np.linspace(self.steps, 0, min(calls, self.steps) + 1).round().astype(int))[::-1].tolist()
        for time, towards in pairwise(chosen):
            times = torch.full((len(noise),), time, device=noise.device)
            noise = self.ddim_step(model(noise, times), noise, times, torch.full_like(times, towards))
        return noise


def _at(values: Tensor, times: Tensor, like: Tensor) -> Tensor:
    return values[times].reshape(-1, *[1] * (like.dim() - 1))


def time_embedding(times: Tensor, size: int) -> Tensor:
    """Sines and cosines of n times, shape (n, size)."""
    half = size // 2
    frequencies = torch.exp(-np.log(10_000) * torch.arange(half, device=times.device) / max(half, 1))
    angles = times[:, None].float() * frequencies
    waves = torch.cat([angles.cos(), angles.sin()], dim=1)
    return nn.functional.pad(waves, (0, size - waves.shape[1]))


class TimeSampler(nn.Module):
    """Draws times with probabilities that grow with their losses, p_t ~ sqrt(E L_t²) (Nichol and Dhariwal, 2021).

    Its memory is part of the network's state, so that a resumed training draws as an uninterrupted one.

    Args:
        steps: T.
        memory: Last losses of each time that count; until each has so many, times are drawn uniformly.
        uniform: Share that is always drawn uniformly.
    """

    losses: Tensor
    seen: Tensor

    def __init__(self, steps: int, memory: int = 10, uniform: float = 1e-3) -> None:
        super().__init__()
        self.memory, self.uniform = memory, uniform
        self.register_buffer("losses", torch.zeros(steps, memory))
        self.register_buffer("seen", torch.zeros(steps, dtype=torch.long))

    def probabilities(self) -> Tensor:
        """p_1 to p_T."""
        steps = len(self.seen)
        if bool((self.seen < self.memory).any()):
            return torch.full((steps,), 1 / steps, device=self.losses.device)
        sizes = self.losses.square().mean(dim=1).sqrt().clamp_min(1e-30)
        return (1 - self.uniform) * sizes / sizes.sum() + self.uniform / steps

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        """n times, and the weights 1 / (T p_t) with which the expected loss is that of uniform times."""
        p = self.probabilities()
        drawn = torch.multinomial(p, n, replacement=True)
        return drawn + 1, 1 / (len(p) * p[drawn])

    @torch.no_grad()
    def note(self, times: Tensor, losses: Tensor) -> None:
        """Remember the losses of n times."""
        for place in torch.unique(times - 1).tolist():
            own = losses[times - 1 == place].detach()
            self.losses[place] = torch.cat([self.losses[place], own])[-self.memory :]
            self.seen[place] += len(own)
