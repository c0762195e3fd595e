"""The Transformer of SASRec and BERT4Rec, and its training; needs torch (extra `neural`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from evaluate.baselines.networks.epochs import reproducible, train_epochs
from evaluate.baselines.networks.sequence_settings import MaskedSettings, SequenceSettings
from programs.runtime.events import OnEvent, ignore

Rows = NDArray[np.int64]
"""Item rows, oldest first."""


class Transformer(nn.Module):
    """Transformer encoder of item sequences; inputs and outputs share the item embeddings.

    Rows 0 to items - 1 are items, then padding, then the mask.
    """

    def __init__(self, items: int, settings: SequenceSettings) -> None:
        super().__init__()
        size = settings.dimensions
        self.padding, self.mask = items, items + 1
        self.causal = not isinstance(settings, MaskedSettings)
        self.scale = size**0.5
        self.item = nn.Embedding(items + 2, size, padding_idx=self.padding)
        self.position = nn.Embedding(settings.length, size)
        self.bias = nn.Parameter(torch.zeros(items))
        for table in (self.item, self.position):
            nn.init.normal_(table.weight, std=0.02)
        nn.init.zeros_(self.item.weight[self.padding])
        block = nn.TransformerEncoderLayer(
            size, settings.heads, 4 * size, settings.dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, settings.layers, norm=nn.LayerNorm(size), enable_nested_tensor=False)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, rows: Tensor) -> Tensor:
        """States at every position.

        Args:
            rows: Shape (batch, length), shorter sequences padded on the right.

        Returns:
            Shape (batch, length, dimensions). SASRec attends to a position and those before it, so padding on the
            right needs no mask; BERT4Rec attends to everything but padding.
        """
        length = rows.shape[1]
        vectors = self.dropout(self.item(rows) * self.scale + self.position(torch.arange(length)))
        if self.causal:
            later = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
            return self.blocks(vectors, mask=later, is_causal=True)
        return self.blocks(vectors, src_key_padding_mask=rows == self.padding)

    def scores(self, states: Tensor, rows: Tensor) -> Tensor:
        """Scores of n items in m states, shape (m, n)."""
        return states @ self.item(rows).T + self.bias[rows]


def train(
    sequences: Sequence[Rows],
    items: int,
    settings: SequenceSettings,
    seed: int,
    folder: Path | None = None,
    on_event: OnEvent = ignore,
) -> Transformer:
    """Train until the validation NDCG stops improving, and keep the best state; see `train_epochs`.

    Validation items are the last items of some sequences, held out of training, and ranked among all items.

    Args:
        sequences: Histories of at least one item.
        items: Number of items; rows are below it.
    """
    with reproducible(seed):
        network = Transformer(items, settings)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.rate)
        training, validation = _hold_out(sequences, settings.validation, np.random.default_rng(seed))
        windows = [window for sequence in training for window in _windows(sequence, settings)]

        def one_epoch(number: int, rng: np.random.Generator) -> float:
            losses = []
            for rows in _batches(windows, network.padding, settings.batch, rng):
                loss = _loss(network, rows, settings, rng)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            return float(np.mean(losses)) if losses else 0.0

        train_epochs(
            network,
            optimizer,
            one_epoch,
            (lambda: _ndcg(network, validation, settings)) if validation else None,
            seed=seed,
            epochs=settings.epochs,
            patience=settings.patience,
            task=f"fitting {settings.name}",
            folder=folder,
            on_event=on_event,
        )
    return network


def _hold_out(
    sequences: Sequence[Rows], most: int, rng: np.random.Generator
) -> tuple[list[Rows], list[tuple[Rows, int]]]:
    """Training sequences, and (history, last item) pairs for validation: at most a tenth of the sequences."""
    long = [index for index, sequence in enumerate(sequences) if len(sequence) > 2]
    chosen = set(rng.permutation(long)[: min(most, len(sequences) // 10)].tolist())
    training = [sequence[:-1] if index in chosen else sequence for index, sequence in enumerate(sequences)]
    return training, [(sequences[index][:-1], int(sequences[index][-1])) for index in sorted(chosen)]


def _windows(sequence: Rows, settings: SequenceSettings) -> Iterator[Rows]:
    """The sequence cut to the network's length, from the end; every item but the first is predicted once."""
    size, overlap = (settings.length, 0) if isinstance(settings, MaskedSettings) else (settings.length + 1, 1)
    end = len(sequence)
    while end > 1:
        start = max(0, end - size)
        yield sequence[start:end]
        end = start + overlap if start else 0


def _batches(windows: Sequence[Rows], padding: int, size: int, rng: np.random.Generator) -> Iterator[Tensor]:
    """All windows in random batches of about equal length, to keep padding small."""
    order = rng.permutation(len(windows))
    order = order[np.argsort([len(windows[index]) for index in order], kind="stable")]
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    for number in rng.permutation(len(batches)):
        yield _padded([windows[index] for index in batches[number]], padding)


def _padded(sequences: Sequence[Rows], padding: int) -> Tensor:
    rows = np.full((len(sequences), max(map(len, sequences))), padding, dtype=np.int64)
    for row, sequence in zip(rows, sequences, strict=True):
        row[: len(sequence)] = sequence
    return torch.from_numpy(rows)


def _loss(network: Transformer, rows: Tensor, settings: SequenceSettings, rng: np.random.Generator) -> Tensor:
    """Cross-entropy of each target item against negatives shared by the whole batch."""
    if isinstance(settings, MaskedSettings):
        outputs, predicted = rows, _masked_positions(rows != network.padding, settings)
        inputs = rows.masked_fill(predicted, network.mask)
    else:
        inputs, outputs = rows[:, :-1], rows[:, 1:]
        predicted = outputs != network.padding
    states, targets = network(inputs)[predicted], outputs[predicted]
    count = len(network.bias)
    negatives = torch.from_numpy(rng.choice(count, size=min(settings.negatives, count), replace=False))
    own = (states * network.item(targets)).sum(dim=1, keepdim=True) + network.bias[targets][:, None]
    others = network.scores(states, negatives).masked_fill(targets[:, None] == negatives, -torch.inf)
    return functional.cross_entropy(torch.cat([own, others], dim=1), torch.zeros(len(targets), dtype=torch.long))


def _masked_positions(real: Tensor, settings: MaskedSettings) -> Tensor:
    """Which positions are masked: each with the same probability, or only the last one, as in ranking."""
    masked = (torch.rand(real.shape) < settings.masked) & real
    last = torch.zeros_like(real).scatter(1, real.sum(dim=1, keepdim=True) - 1, True)
    only_last = (torch.rand(len(real)) < settings.last_only) | ~masked.any(dim=1)
    return torch.where(only_last[:, None], last, masked)


def last_states(network: Transformer, histories: Sequence[Rows], settings: SequenceSettings) -> Tensor:
    """The states that score the next items of b histories of at least one item, shape (b, dimensions)."""
    if isinstance(settings, MaskedSettings):
        seen = [np.append(history[-(settings.length - 1) :], network.mask) for history in histories]
    else:
        seen = [history[-settings.length :] for history in histories]
    last = torch.tensor([len(rows) - 1 for rows in seen])
    return network(_padded(seen, network.padding))[torch.arange(len(seen)), last]


@torch.no_grad()
def item_scores(network: Transformer, history: Rows, items: Rows, settings: SequenceSettings) -> NDArray[np.float32]:
    """Scores of n items as the next item of a history, shape (n,); the items' biases for an empty history."""
    rows = torch.from_numpy(items)
    if not len(history):
        return np.asarray(network.bias[rows].numpy(), dtype=np.float32)
    return np.asarray(network.scores(last_states(network, [history], settings), rows)[0].numpy(), dtype=np.float32)


@torch.no_grad()
def list_scores(
    network: Transformer, histories: Sequence[Rows], owner: Rows, items: Rows, settings: SequenceSettings
) -> NDArray[np.float32]:
    """Scores of n items of several lists, shape (n,); `owner` is the place of each item's history."""
    states = torch.zeros(len(histories), network.item.embedding_dim)
    full = [place for place, history in enumerate(histories) if len(history)]
    if full:
        states[full] = last_states(network, [histories[place] for place in full], settings)
    rows = torch.from_numpy(items)
    scores = (states[torch.from_numpy(owner)] * network.item(rows)).sum(dim=1) + network.bias[rows]
    return np.asarray(scores.numpy(), dtype=np.float32)


@torch.no_grad()
def _ndcg(network: Transformer, pairs: Sequence[tuple[Rows, int]], settings: SequenceSettings) -> float:
    """Mean NDCG of the next items among all items."""
    all_items = torch.arange(len(network.bias))
    total = 0.0
    for start in range(0, len(pairs), settings.batch):
        batch = pairs[start : start + settings.batch]
        scores = network.scores(last_states(network, [history for history, _ in batch], settings), all_items)
        own = scores.gather(1, torch.tensor([[target] for _, target in batch]))
        total += float((1.0 / torch.log2(2.0 + (scores > own).sum(dim=1))).sum())
    return total / len(pairs)
