"""Stage 1 of A-LLMRec: item vectors of a frozen recommender and vectors of their texts, encoded into joint codes.

The loss of a batch of (user state x, next item i, random item j) is

    BCE(x . D(C(e)) + b) + MSE(C(e), T(t)) + .5 MSE(D(C(e)), e) + .2 MSE(U(T(t)), t)

with item encoder C and decoder D, text encoder T and decoder U (equations 1 to 5 of the paper), and vectors e, biases b
and texts t of both items. The first term is one mean over both, of the answers 1 for i and 0 for j, where the paper
adds up a mean for each: it weighs half as much here. The terms with t are means over the items that have a text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evaluate.baselines.networks.batches import shuffled_batches
from evaluate.baselines.networks.epochs import reproducible, take_steps, train_epochs
from evaluate.baselines.networks.fit_plan import FitPlan
from programs.prior.encoders import Vectors
from programs.runtime.device import best_device
from programs.runtime.errors import InputError
from programs.runtime.one_thread import one_thread

ITEM_WEIGHT, TEXT_WEIGHT = 0.5, 0.2
"""Weights of the two reconstructions, as published."""
DEV_SHARE = 0.05
"""Share of the pairs whose loss stops the training."""


@dataclass(frozen=True)
class Positions:
    """What the codes are learned from.

    Attributes:
        states: State of a user before an item, shape (n, d).
        targets: Row of that item, shape (n,).
        items: Vectors of all items in the recommender, shape (m, d).
        biases: Their biases, shape (m,).
        texts: Vectors of their texts, shape (m, t); zeros where there is none.
    """

    states: Vectors
    targets: NDArray[np.int64]
    items: Vectors
    biases: Vectors
    texts: Vectors


class JointCodes(nn.Module):
    """Encoders and decoders of item and text vectors; codes are between 0 and 1."""

    def __init__(self, item_size: int, text_size: int, code_size: int) -> None:
        super().__init__()
        self.item_encoder = nn.Sequential(nn.Linear(item_size, code_size), nn.Sigmoid())
        self.item_decoder = nn.Linear(code_size, item_size)
        self.text_encoder = nn.Sequential(nn.Linear(text_size, code_size), nn.Sigmoid())
        self.text_decoder = nn.Linear(code_size, text_size)

    @one_thread()
    @torch.no_grad()
    def codes(self, vectors: Vectors, text: bool) -> Vectors:
        """Joint codes of item vectors, or of text vectors; shape (m, code size)."""
        encoder = self.text_encoder if text else self.item_encoder
        return np.asarray(encoder(self._tensor(vectors)).cpu().numpy(), dtype=np.float32)

    @one_thread()
    @torch.no_grad()
    def decoded(self, codes: Vectors) -> Vectors:
        """Item vectors of joint codes, shape (m, d)."""
        return np.asarray(self.item_decoder(self._tensor(codes)).cpu().numpy(), dtype=np.float32)

    def _tensor(self, vectors: Vectors) -> Tensor:
        return torch.from_numpy(vectors).to(self.item_decoder.weight.device)


def align(pairs: Positions, code_size: int, plan: FitPlan, *, batch: int, rate: float) -> JointCodes:
    """Train the codes until the loss of held-out pairs stops falling; resumable, see `train_epochs`.

    Memory: the states of all pairs, 4 d bytes each (38 MB for 150,000 pairs of 64 numbers).

    Args:
        batch: Positions of one step.
        rate: Learning rate of Adam.

    Raises:
        InputError: if there are fewer than two positions: one is held out.
    """
    if len(pairs.targets) < 2:
        raise InputError(
            f"{plan.task}: learns what users have after their first item, and the training data have "
            f"{len(pairs.targets)} such items; it needs two, so choose data with longer histories"
        )
    device = best_device()
    with reproducible(plan.seed):
        network = JointCodes(pairs.items.shape[1], pairs.texts.shape[1], code_size).to(device)
        optimizer = torch.optim.Adam(network.parameters(), lr=rate)
        states, items, texts, biases = (
            torch.from_numpy(part).to(device) for part in (pairs.states, pairs.items, pairs.texts, pairs.biases)
        )
        with_text = texts.any(dim=1)
        order = np.random.default_rng(plan.seed).permutation(len(pairs.targets))
        held_out, learned = np.split(order, [max(1, int(DEV_SHARE * len(order)))])
        fixed = np.random.default_rng([plan.seed, 1]).integers(len(items), size=len(held_out))

        def loss(rows: NDArray[np.int64], negatives: NDArray[np.int64]) -> Tensor:
            both = torch.from_numpy(np.stack([pairs.targets[rows], negatives])).to(device)
            e, t, has_text = items[both], texts[both], with_text[both]
            code, text_code = network.item_encoder(e), network.text_encoder(t)
            decoded = network.item_decoder(code)
            logits = (states[torch.from_numpy(rows).to(device)] * decoded).sum(-1) + biases[both]
            answers = torch.zeros_like(logits)
            answers[0] = 1
            return (
                functional.binary_cross_entropy_with_logits(logits, answers)
                + _mean_square(code - text_code, has_text)
                + ITEM_WEIGHT * functional.mse_loss(decoded, e)
                + TEXT_WEIGHT * _mean_square(network.text_decoder(text_code) - t, has_text)
            )

        def losses(rng: np.random.Generator) -> Iterator[Tensor]:
            for rows in shuffled_batches(len(learned), batch, rng):
                yield loss(learned[rows], rng.integers(len(items), size=len(rows)))

        def one_epoch(number: int, rng: np.random.Generator) -> float:
            return take_steps(optimizer, losses(rng))

        train_epochs(network, optimizer, one_epoch, lambda: -float(loss(held_out, fixed)), plan)
    return network


def _mean_square(apart: Tensor, counted: Tensor) -> Tensor:
    """Mean square of those vectors that count; 0 if none does.

    Args:
        apart: Shape (2, b, c).
        counted: Shape (2, b): whether a vector counts.
    """
    return (apart.square().mean(dim=-1) * counted).sum() / counted.sum().clamp_min(1)
