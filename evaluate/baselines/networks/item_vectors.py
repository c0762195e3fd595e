"""Item vectors: what a sequential recommender reads of an item, and what it scores it by.

Rows 0 to trained - 1 are items with users, then items that are known by their text alone, then padding, then the mask.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


def id_table(trained: int, items: int, dimensions: int) -> nn.Embedding:
    """A vector for each row; zeros for items without users, which nothing would train, and for padding."""
    table = nn.Embedding(items + 2, dimensions, padding_idx=items)
    nn.init.normal_(table.weight, std=0.02)
    nn.init.zeros_(table.weight[trained : items + 1])
    return table


class Ids(nn.Module):
    """One vector for each item, read and scored by.

    Args:
        apart: Whether items are scored by vectors of their own.
    """

    def __init__(self, trained: int, items: int, dimensions: int, apart: bool = False) -> None:
        super().__init__()
        self.size = dimensions
        self.item = id_table(trained, items, dimensions)
        self.scored = id_table(trained, items, dimensions) if apart else None

    def forward(self, rows: Tensor) -> Tensor:
        """The vectors that are read, shape (..., d)."""
        return cast(Tensor, self.item(rows))

    def outputs(self, rows: Tensor) -> Tensor:
        """The vectors that are scored by, shape (..., d)."""
        return cast(Tensor, (self.item if self.scored is None else self.scored)(rows))


class _Texts(nn.Module):
    """Frozen text vectors through two linear layers."""

    frozen: Tensor

    def __init__(self, vectors: NDArray[np.float32], dimensions: int) -> None:
        super().__init__()
        width = vectors.shape[1]
        rows = np.vstack([vectors, np.zeros((2, width), dtype=np.float32)])
        # Not part of the state: a kept fit would hold the texts of the whole catalogue again.
        self.register_buffer("frozen", torch.from_numpy(rows), persistent=False)
        middle = max(dimensions, width // 2)
        self.adapter = nn.Sequential(nn.Linear(width, middle, bias=False), nn.Linear(middle, dimensions, bias=False))
        with torch.no_grad():
            self.adapter[1].weight *= 0.02 * dimensions**0.5 / float(self.adapter(self.frozen[:-2]).norm(dim=1).mean())

    def forward(self, rows: Tensor) -> Tensor:
        return cast(Tensor, self.adapter(self.frozen[rows]))


class Summed(nn.Module):
    """Id and text of an item added up (SeRALM)."""

    def __init__(self, trained: int, vectors: NDArray[np.float32], dimensions: int) -> None:
        super().__init__()
        self.size = dimensions
        self.item = id_table(trained, len(vectors), dimensions)
        self.text = _Texts(vectors, dimensions)

    def forward(self, rows: Tensor) -> Tensor:
        """The vectors that are read, shape (..., d)."""
        return cast(Tensor, self.item(rows) + self.text(rows))

    def outputs(self, rows: Tensor) -> Tensor:
        """The vectors that are scored by: the same."""
        return self(rows)


class SideBySide(nn.Module):
    """Id and text of an item one after the other; the ids begin as the principal components of the texts (LLM-ESR)."""

    def __init__(self, trained: int, vectors: NDArray[np.float32], dimensions: int) -> None:
        super().__init__()
        self.size = 2 * dimensions
        self.item = id_table(trained, len(vectors), dimensions)
        self.text = _Texts(vectors, dimensions)
        with torch.no_grad():
            begin = torch.from_numpy(principal_components(vectors[:trained], dimensions))
            self.item.weight[:trained, : begin.shape[1]] = begin * 0.02

    def forward(self, rows: Tensor) -> Tensor:
        """The vectors that are read, shape (..., 2 d)."""
        return torch.cat([self.item(rows), self.text(rows)], dim=-1)

    def outputs(self, rows: Tensor) -> Tensor:
        """The vectors that are scored by: the same."""
        return self(rows)


def principal_components(vectors: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """The first components of n vectors, each with standard deviation 1, shape (n, at most `most`)."""
    centred = vectors - vectors.mean(axis=0)
    values, directions = np.linalg.eigh((centred.T @ centred).astype(float))
    kept = np.argsort(-values)[: min(most, len(vectors))]
    found = centred @ directions[:, kept]
    return np.asarray(found / np.maximum(found.std(axis=0), 1e-9), dtype=np.float32)
