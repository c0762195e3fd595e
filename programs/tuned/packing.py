"""Packed sequences: one prefix and k suffixes as a single row, in which each suffix sees the prefix and itself.

The prefix is computed once instead of k times; the values equal those of k separate rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Packed:
    """One row for a decoder.

    Attributes:
        ids: Token ids, shape (length,).
        positions: Position of each token as if its suffix stood alone after the prefix, shape (length,).
        visible: Whether the token of a row sees the token of a column, shape (length, length).
        ends: Index of each suffix's last token, shape (k,).
        prefix: Number of tokens of the prefix.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    visible: NDArray[np.bool_]
    ends: NDArray[np.int64]
    prefix: int


def pack(prefix: Sequence[int], suffixes: Sequence[Sequence[int]]) -> Packed:
    """Pack token ids.

    Args:
        prefix: At least one token id.
        suffixes: Each at least one token id.

    >>> packed = pack([7, 8], [[1], [2, 3]])
    >>> packed.ids.tolist(), packed.positions.tolist(), packed.ends.tolist()
    ([7, 8, 1, 2, 3], [0, 1, 2, 2, 3], [2, 4])
    >>> packed.visible.astype(int).tolist()
    [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]
    """
    if not prefix or not all(map(len, suffixes)):
        raise ValueError("the prefix and every suffix need at least one token")
    own = np.concatenate([np.full(len(prefix), -1), *(np.full(len(s), n) for n, s in enumerate(suffixes))])
    ids = np.concatenate([np.asarray(part, dtype=np.int64) for part in (prefix, *suffixes)])
    after = [np.arange(len(suffix)) + len(prefix) for suffix in suffixes]
    positions = np.concatenate([np.arange(len(prefix)), *after]).astype(np.int64)
    same = (own[:, None] == own[None, :]) | (own[None, :] == -1)
    visible = same & np.tri(len(ids), dtype=bool)
    ends = len(prefix) - 1 + np.cumsum([len(suffix) for suffix in suffixes], dtype=np.int64)
    return Packed(ids, positions, visible, ends, len(prefix))
