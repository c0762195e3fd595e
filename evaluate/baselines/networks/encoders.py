"""Encoders: how the item vectors of a history become a state at every position.

Each is called with vectors of shape (batch, length, d), a mask that is true where there is padding, and user rows of
shape (batch,). Padding is on the right, so a causal encoder needs no mask for it. The state at a position depends on
items up to that position alone, except in masked training.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from evaluate.baselines.networks.sequence_settings import AttentionSettings, GateSettings, SequenceSettings


def later_positions(length: int, device: torch.device) -> Tensor:
    """The causal mask: true where the second position comes after the first, shape (length, length)."""
    return torch.triu(torch.ones(length, length, dtype=torch.bool, device=device), diagonal=1)


class AttentionEncoder(nn.Module):
    """Transformer blocks with learned positions (SASRec; with `causal` off: BERT4Rec).

    Causal blocks count positions from the first item. The others count them from the last one, so that the next
    item has the same position in histories of all lengths.
    """

    def __init__(self, settings: AttentionSettings, causal: bool = True) -> None:
        super().__init__()
        size = settings.dimensions
        self.causal, self.scale = causal, size**0.5
        self.position = nn.Embedding(settings.length, size)
        nn.init.normal_(self.position.weight, std=0.02)
        block = nn.TransformerEncoderLayer(
            size, settings.heads, 4 * size, settings.dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, settings.layers, norm=nn.LayerNorm(size), enable_nested_tensor=False)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, vectors: Tensor, padded: Tensor, users: Tensor) -> Tensor:
        """States, shape (batch, length, d)."""
        length = vectors.shape[1]
        positions = torch.arange(length, device=vectors.device)
        if not self.causal:
            positions = ((~padded).sum(dim=1, keepdim=True) - 1 - positions).clamp_min(0)
        vectors = self.dropout(vectors * self.scale + self.position(positions))
        if self.causal:
            return cast(Tensor, self.blocks(vectors, mask=later_positions(length, vectors.device), is_causal=True))
        return cast(Tensor, self.blocks(vectors, src_key_padding_mask=padded))


class GRUEncoder(nn.Module):
    """Gated recurrent units of twice the width, and a linear map back (GRU4Rec)."""

    def __init__(self, settings: SequenceSettings) -> None:
        super().__init__()
        dimensions = settings.dimensions
        self.scale = dimensions**0.5
        self.units = nn.GRU(dimensions, 2 * dimensions, batch_first=True)
        self.back = nn.Linear(2 * dimensions, dimensions)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, vectors: Tensor, padded: Tensor, users: Tensor) -> Tensor:
        """States, shape (batch, length, d)."""
        states, _ = self.units(self.dropout(vectors * self.scale))
        return cast(Tensor, self.back(self.dropout(states)))


class GateEncoder(nn.Module):
    """Hierarchical gates over the last items of a window (Ma, Kang and Liu, KDD 2019, eq. 4 to 8).

    With item vectors e of the window and user vector u: feature gate f_i = e_i * sigmoid(W1 e_i + W2 u + b), instance
    gate a_i = sigmoid(w3 f_i + u W4[i]), union = sum of a_i f_i / sum of a_i. The published score
    u w + union w + sum of e_i w is that of the state u + union + sum of e_i for an item with output vector w.
    """

    def __init__(self, settings: GateSettings, users: int) -> None:
        super().__init__()
        dimensions = settings.dimensions
        self.window = window = settings.window
        self.user = nn.Embedding(users + 1, dimensions, padding_idx=users)
        nn.init.normal_(self.user.weight, std=0.02)
        nn.init.zeros_(self.user.weight[users])
        self.feature_item = nn.Linear(dimensions, dimensions)
        self.feature_user = nn.Linear(dimensions, dimensions, bias=False)
        self.instance_item = nn.Parameter(torch.empty(dimensions))
        self.instance_user = nn.Parameter(torch.empty(dimensions, window))
        for gate in (self.instance_item, self.instance_user):
            nn.init.normal_(gate, std=dimensions**-0.5)
        self.dropout = nn.Dropout(settings.dropout)

    def forward(self, vectors: Tensor, padded: Tensor, users: Tensor) -> Tensor:
        """States, shape (batch, length, d)."""
        vectors = self.dropout(vectors) * ~padded[..., None]
        user = self.dropout(self.user(users))
        before = functional.pad(vectors, (0, 0, self.window - 1, 0))
        real = functional.pad(~padded, (self.window - 1, 0)).unfold(1, self.window, 1)
        items = before.unfold(1, self.window, 1).transpose(2, 3)  # (batch, length, window, d)
        gated = items * torch.sigmoid(self.feature_item(items) + self.feature_user(user)[:, None, None])
        opened = torch.sigmoid(gated @ self.instance_item + (user @ self.instance_user)[:, None]) * real
        union = (opened[..., None] * gated).sum(dim=2) / opened.sum(dim=2).clamp_min(1e-6)[..., None]
        return user[:, None] + union + items.sum(dim=2)


class DualEncoder(nn.Module):
    """Two views of a history, of ids and of texts, that attend to each other and share one Transformer (LLM-ESR).

    Takes and gives the views side by side, shape (batch, length, 2 d).
    """

    def __init__(self, settings: AttentionSettings) -> None:
        super().__init__()
        size = settings.dimensions
        self.of_ids = nn.MultiheadAttention(size, settings.heads, settings.dropout, batch_first=True)
        self.of_texts = nn.MultiheadAttention(size, settings.heads, settings.dropout, batch_first=True)
        self.shared = AttentionEncoder(settings)

    def forward(self, vectors: Tensor, padded: Tensor, users: Tensor) -> Tensor:
        """States, shape (batch, length, 2 d)."""
        ids, texts = vectors.chunk(2, dim=2)
        later = later_positions(vectors.shape[1], vectors.device)
        from_texts, _ = self.of_ids(ids, texts, texts, attn_mask=later, need_weights=False)
        from_ids, _ = self.of_texts(texts, ids, ids, attn_mask=later, need_weights=False)
        views = torch.cat([ids + from_texts, texts + from_ids])
        both = self.shared(views, padded.repeat(2, 1), users)
        return torch.cat(both.chunk(2), dim=2)
