"""Sequential recommenders as networks: item vectors, an encoder of histories, and scores of items in a state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from evaluate.baselines.networks.batches import padded
from evaluate.baselines.networks.encoders import AttentionEncoder, DualEncoder, GateEncoder, GRUEncoder
from evaluate.baselines.networks.item_vectors import Ids, SideBySide, Summed
from evaluate.baselines.networks.sequence_settings import (
    AttentionSettings,
    GateSettings,
    SequenceSettings,
    TextSettings,
)
from programs.runtime.one_thread import one_thread

Rows = NDArray[np.int64]
"""Item rows, oldest first."""


class SequenceNetwork(nn.Module):
    """Item vectors, encoder and biases; the settings say which.

    Args:
        settings: Hyperparameters.
        trained: Number of items with users; their rows come first.
        users: Number of users with a row; one more stands for all others.
        texts: Shape (items, d): frozen text vectors of all items, for settings that read them.
    """

    def __init__(
        self, settings: SequenceSettings, trained: int, users: int, texts: NDArray[np.float32] | None = None
    ) -> None:
        super().__init__()
        self.trained, self.unknown_user = trained, users
        items = trained if texts is None else len(texts)
        self.padding, self.mask = items, items + 1
        self.length, self.masked = settings.length, settings.encoder == "masked"
        self.vectors = _vectors(settings, trained, texts)
        self.encoder = _encoder(settings, users)
        self.bias = nn.Parameter(torch.zeros(items))

    def forward(self, rows: Tensor, users: Tensor) -> Tensor:
        """States at every position.

        Args:
            rows: Shape (batch, length), shorter sequences padded on the right.
            users: Shape (batch,).

        Returns:
            Shape (batch, length, d).
        """
        return cast(Tensor, self.encoder(self.vectors(rows), rows == self.padding, users))

    def scores(self, states: Tensor, rows: Tensor) -> Tensor:
        """Scores of n items in m states, shape (m, n)."""
        return states @ self.vectors.outputs(rows).T + self.bias[rows]

    def paired_scores(self, states: Tensor, rows: Tensor) -> Tensor:
        """Scores of n items, each in a state of its own, shape (n,)."""
        return (states * self.vectors.outputs(rows)).sum(dim=1) + self.bias[rows]

    def last_states(self, histories: Sequence[Rows], users: Tensor) -> Tensor:
        """The states that score the next items of b histories of at least one item, shape (b, d)."""
        if self.masked:
            seen = [np.append(history[-(self.length - 1) :], self.mask) for history in histories]
        else:
            seen = [history[-self.length :] for history in histories]
        last = torch.tensor([len(rows) - 1 for rows in seen], device=self.device)
        return self(self.padded(seen), users)[torch.arange(len(seen), device=self.device), last]

    def padded(self, sequences: Sequence[Rows]) -> Tensor:
        """Sequences as one array, padded on the right."""
        return torch.from_numpy(padded(sequences, self.padding)).to(self.device)

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return self.bias.device

    @one_thread()
    @torch.no_grad()
    def list_scores(
        self, histories: Sequence[Rows], users: Sequence[int], owner: Rows, items: Rows
    ) -> NDArray[np.float32]:
        """Scores of n items of several lists, shape (n,); by their biases alone where the history is empty.

        Args:
            users: User row of every history.
            owner: Shape (n,): the place of each item's history.
        """
        states = torch.zeros(len(histories), self.vectors.size, device=self.device)
        full = [place for place, history in enumerate(histories) if len(history)]
        if full:
            who = torch.tensor([users[place] for place in full], device=self.device)
            states[full] = self.last_states([histories[place] for place in full], who)
        rows = torch.from_numpy(items).to(self.device)
        scores = self.paired_scores(states[torch.from_numpy(owner).to(self.device)], rows)
        return np.asarray(scores.cpu().numpy(), dtype=np.float32)


def _vectors(settings: SequenceSettings, trained: int, texts: NDArray[np.float32] | None) -> Ids | Summed | SideBySide:
    size = settings.dimensions
    if texts is None:
        return Ids(trained, trained, size, apart=settings.encoder == "gates")
    return SideBySide(trained, texts, size) if settings.encoder == "dual" else Summed(trained, texts, size)


def _encoder(settings: SequenceSettings, users: int) -> nn.Module:
    if isinstance(settings, GateSettings):
        return GateEncoder(settings, users)
    if isinstance(settings, TextSettings) and settings.encoder == "dual":
        return DualEncoder(settings)
    if isinstance(settings, AttentionSettings):
        return AttentionEncoder(settings, causal=settings.encoder == "attention")
    return GRUEncoder(settings)
