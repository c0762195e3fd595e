"""A prior fitted to invented vectors and interactions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from programs.prior.prior import Prior
from programs.prior.scorers import ContentSimilarity


def invented_prior(items: Sequence[str], users: int, seed: int, dimensions: int = 8, groups: int = 5) -> Prior:
    """A prior on items in groups: texts of a group are alike, and users prefer one group."""
    rng = np.random.default_rng(seed)
    group = rng.integers(groups, size=len(items))
    centres = rng.normal(size=(groups, dimensions))
    vectors = centres[group] + 0.7 * rng.normal(size=(len(items), dimensions))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    histories = {}
    for user in range(users):
        weights = np.where(group == rng.integers(groups), 5.0, 1.0)
        chosen = rng.choice(len(items), size=rng.integers(1, 7), p=weights / weights.sum())
        histories[f"u{user}"] = [items[place] for place in chosen]
    return Prior.fit(histories, ContentSimilarity(dict(zip(items, vectors, strict=True))))
