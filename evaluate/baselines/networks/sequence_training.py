"""Training of sequential recommenders: windows, batches, sampled softmax, and early stopping on held-out items."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from evaluate.baselines.networks.batches import batches_by_length
from evaluate.baselines.networks.dev_ndcg import target_ndcg
from evaluate.baselines.networks.epochs import reproducible, take_steps, train_epochs
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.held_out import hold_out_last
from evaluate.baselines.networks.sequence_network import Rows, SequenceNetwork
from evaluate.baselines.networks.sequence_settings import DistilledSettings, MaskedSettings, SequenceSettings
from programs.runtime.device import best_device


@dataclass(frozen=True)
class Window:
    """A part of a user's sequence.

    Attributes:
        rows: At least two items.
        user: Row of the user.
        weights: Weight of each item as a target, shape (items,); None for 1 each.
    """

    rows: Rows
    user: int
    weights: NDArray[np.float32] | None = None


class Augmenter(Protocol):
    """Gives sequences with pseudo items; only training reads them: no count, no neighbour and no ranking does."""

    def __call__(
        self, number: int, training: Sequence[Rows], rng: np.random.Generator
    ) -> Sequence[tuple[Rows, NDArray[np.float32]]]:
        """Sequences of an epoch in place of the training sequences, and the weight of each item as a target.

        Args:
            number: Of the epoch, from 1.
            training: Sequences without what is held out for validation; the same in every epoch.
        """
        ...


def train(
    sequences: Sequence[Rows],
    items: int,
    settings: SequenceSettings,
    plan: FitPlan,
    texts: NDArray[np.float32] | None = None,
    augment: Augmenter | None = None,
) -> SequenceNetwork:
    """Train until the validation NDCG stops improving, and keep the best state; see `train_epochs`.

    Validation items are the last items of some sequences, held out of training, and ranked among all items with users.

    Args:
        sequences: Histories of at least one item; their number is the row of the user.
        items: Number of items with users; rows are below it.
        texts: See `SequenceNetwork`.
        augment: Gives other sequences to train on; None for the sequences as they are.
    """
    with reproducible(plan.seed):
        network = SequenceNetwork(settings, items, len(sequences), texts).to(best_device())
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.rate)
        training, held_out = hold_out_last(sequences, settings.validation, np.random.default_rng(plan.seed))
        validation = [(user, training[user], int(sequences[user][-1])) for user in held_out]
        windows = [window for user, own in enumerate(training) for window in _windows(own, user, settings)]
        teacher = None
        if isinstance(settings, DistilledSettings) and settings.distilled:
            teacher = _Teacher(network, training, settings)

        def one_epoch(number: int, rng: np.random.Generator) -> float:
            towards = None if teacher is None else teacher.states()
            own = windows
            if augment is not None:
                given = enumerate(augment(number, training, rng))
                own = [one for user, (rows, weights) in given for one in _windows(rows, user, settings, weights)]
            numbers = batches_by_length([len(window.rows) for window in own], settings.batch, rng)
            batches = ([own[number] for number in batch] for batch in numbers)
            return take_steps(optimizer, (_loss(network, batch, settings, rng, towards) for batch in batches))

        def dev_score() -> float:
            return ndcg_among_all(network, validation, settings.batch)

        train_epochs(network, optimizer, one_epoch, dev_score if validation else None, plan)
    return network


def _windows(
    sequence: Rows, user: int, settings: SequenceSettings, weights: NDArray[np.float32] | None = None
) -> Iterator[Window]:
    """The sequence cut to the network's length, from the end; every item but the first is predicted once."""
    size, overlap = (settings.length, 0) if isinstance(settings, MaskedSettings) else (settings.length + 1, 1)
    end = len(sequence)
    while end > 1:
        start = max(0, end - size)
        yield Window(sequence[start:end], user, None if weights is None else weights[start:end])
        end = start + overlap if start else 0


def _loss(
    network: SequenceNetwork,
    batch: Sequence[Window],
    settings: SequenceSettings,
    rng: np.random.Generator,
    towards: Tensor | None,
) -> Tensor:
    """Cross-entropy of each target item against negatives shared by the whole batch, and what is distilled."""
    rows = network.padded([window.rows for window in batch])
    users = torch.tensor([window.user for window in batch], device=network.device)
    if isinstance(settings, MaskedSettings):
        seen, predicted = _masked(rows != network.padding, settings)
        inputs, outputs = rows.masked_fill(~seen, network.padding).masked_fill(predicted, network.mask), rows
    else:
        inputs, outputs = rows[:, :-1], rows[:, 1:]
        predicted = outputs != network.padding
    states = network(inputs, users)
    weights = None if batch[0].weights is None else _weights(batch, rows)[:, -outputs.shape[1] :][predicted]
    loss = sampled_softmax(network, states[predicted], outputs[predicted], settings.negatives, rng, weights)
    if towards is not None and isinstance(settings, DistilledSettings):
        last = states[torch.arange(len(batch), device=network.device), predicted.sum(dim=1) - 1]
        loss = loss + settings.distilled * functional.mse_loss(last, towards[users])
    return loss


def _weights(batch: Sequence[Window], rows: Tensor) -> Tensor:
    """Weights of targets, shape (batch, length)."""
    weights = np.zeros(tuple(rows.shape), dtype=np.float32)
    for place, window in zip(weights, batch, strict=True):
        place[: len(window.rows)] = 1 if window.weights is None else window.weights
    return torch.from_numpy(weights).to(rows.device)


def sampled_softmax(
    network: SequenceNetwork,
    states: Tensor,
    targets: Tensor,
    most: int,
    rng: np.random.Generator,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy of targets in their states against uniform negatives, both scored by the same vectors.

    Args:
        weights: Of the targets in the mean; None for equal ones.
    """
    count = network.trained
    drawn = rng.choice(count, size=min(most, count), replace=False)
    negatives = torch.from_numpy(drawn).to(network.device)
    own = network.paired_scores(states, targets)[:, None]
    others = network.scores(states, negatives).masked_fill(targets[:, None] == negatives, -torch.inf)
    first = torch.zeros(len(targets), dtype=torch.long, device=network.device)
    logits = torch.cat([own, others], dim=1)
    if weights is None:
        return functional.cross_entropy(logits, first)
    return (functional.cross_entropy(logits, first, reduction="none") * weights).sum() / weights.sum().clamp_min(1e-9)


def _masked(real: Tensor, settings: MaskedSettings) -> tuple[Tensor, Tensor]:
    """Which positions of each history are seen, and which of these are masked.

    Masked are positions with the same probability each, or only the last one, as in ranking: that of the whole history,
    or of a history that is cut at a random item.
    """
    ends = real.sum(dim=1) - 1
    cut = _drawn(real[:, 0], settings.cut)
    ends = torch.where(cut, 1 + (torch.rand(len(ends), device=real.device) * ends).long(), ends)
    seen = real & (torch.arange(real.shape[1], device=real.device) <= ends[:, None])
    masked = _drawn(real, settings.masked) & seen
    last = torch.zeros_like(real).scatter(1, ends[:, None], True)
    only_last = cut | _drawn(cut, settings.last_only) | ~masked.any(dim=1)
    return seen, torch.where(only_last[:, None], last, masked)


def _drawn(like: Tensor, share: float) -> Tensor:
    """Random truths of the same shape."""
    return torch.rand(like.shape, device=like.device) < share


class _Teacher:
    """States of similar users: those whose training histories have the nearest mean text vectors."""

    def __init__(self, network: SequenceNetwork, histories: Sequence[Rows], settings: DistilledSettings) -> None:
        self.network, self.histories, self.batch = network, histories, settings.batch
        self.similar = similar_users(network.vectors.text.frozen.cpu().numpy(), histories, settings.similar)

    @torch.no_grad()
    def states(self) -> Tensor:
        """The mean last state of every user's similar users with the weights as they are, shape (users, d)."""
        self.network.eval()
        found = []
        for start in range(0, len(self.histories), self.batch):
            some = self.histories[start : start + self.batch]
            users = torch.arange(start, start + len(some), device=self.network.device)
            found.append(self.network.last_states(some, users))
        self.network.train()
        states = torch.cat(found)
        return states[torch.from_numpy(self.similar).to(self.network.device)].mean(dim=1)


def similar_users(vectors: NDArray[np.float32], histories: Sequence[Rows], count: int) -> NDArray[np.int64]:
    """Rows of the users with the nearest mean vector of their histories, shape (users, at most `count`).

    Args:
        vectors: Shape (items, d).
        histories: Of training data: no target is among them.
    """
    means = np.stack([vectors[history].mean(axis=0) for history in histories])
    means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-9)
    kept = min(count, len(means) - 1)
    found = np.zeros((len(means), max(kept, 1)), dtype=np.int64)
    for start in range(0, len(means) if kept else 0, 512):
        cosines = means[start : start + 512] @ means.T
        cosines[np.arange(len(cosines)), np.arange(start, start + len(cosines))] = -np.inf
        found[start : start + 512] = np.argpartition(cosines, -kept, axis=1)[:, -kept:]
    return found


@torch.no_grad()
def ndcg_among_all(network: SequenceNetwork, held_out: Sequence[tuple[int, Rows, int]], size: int) -> float:
    """Mean NDCG of the next items among all items with users.

    Args:
        held_out: (user, history, next item).
        size: Histories scored at a time.
    """
    all_items = torch.arange(network.trained, device=network.device)
    total = 0.0
    for start in range(0, len(held_out), size):
        users, histories, targets = zip(*held_out[start : start + size], strict=True)
        states = network.last_states(histories, torch.tensor(users, device=network.device))
        scores = network.scores(states, all_items)
        total += float(target_ndcg(scores, torch.tensor(targets, device=network.device)).sum())
    return total / len(held_out)
