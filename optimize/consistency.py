"""Eq. 5: how much the k profiles of one shopper agree, and how much the profiles of different shoppers do.

The paper tunes prompts by the first. Alone it is easily fooled: identical or generic profiles agree perfectly. The
second, `discrimination`, says whether the profiles still tell shoppers apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from programs.prior.encoders import Encoder
from signatures.types import Profile

Similarity = Callable[[Sequence[Profile]], NDArray[np.float64]]
"""From n profiles to their (n, n) similarities in 0..1; an empty profile is like nothing, itself included."""

_WORD = re.compile(r"\w{3,}")


def _jaccard(sets: Sequence[frozenset[str]]) -> NDArray[np.float64]:
    vocabulary = {word: column for column, word in enumerate(sorted(frozenset().union(*sets)))}
    member = np.zeros((len(sets), len(vocabulary)))
    for row, words in enumerate(sets):
        member[row, [vocabulary[word] for word in words]] = 1.0
    both = member @ member.T
    size = member.sum(axis=1)
    either = size[:, None] + size[None, :] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def schema_cooccurrence(profiles: Sequence[Profile]) -> NDArray[np.float64]:
    """Jaccard overlap of the dimensions two profiles name."""
    return _jaccard([frozenset(m.dimension for m in profile.motivations) for profile in profiles])


def keyword_overlap(profiles: Sequence[Profile]) -> NDArray[np.float64]:
    """Jaccard overlap of the words of three letters and more in two profiles' descriptions."""
    return _jaccard(
        [
            frozenset(word for m in profile.motivations for word in _WORD.findall(m.description.lower()))
            for profile in profiles
        ]
    )


def semantic_similarity(encoder: Encoder) -> Similarity:
    """Cosine of the mean embedding of two profiles' descriptions, negative values counted as 0."""

    def similarity(profiles: Sequence[Profile]) -> NDArray[np.float64]:
        phrases = [m.description for profile in profiles for m in profile.motivations]
        if not phrases:
            return np.zeros((len(profiles), len(profiles)))
        vectors = np.asarray(encoder.encode(phrases), dtype=float)
        means = np.zeros((len(profiles), vectors.shape[1]))
        start = 0
        for row, profile in enumerate(profiles):
            end = start + len(profile.motivations)
            if end > start:
                mean = vectors[start:end].mean(axis=0)
                means[row] = mean / (np.linalg.norm(mean) or 1.0)
            start = end
        return np.clip(means @ means.T, 0.0, 1.0)

    return similarity


def weighted(parts: Sequence[tuple[float, Similarity]]) -> Similarity:
    """A mix of similarities; weights are normalised to sum 1.

    Raises:
        ValueError: if a weight is negative or all are zero.
    """
    total = sum(weight for weight, _ in parts)
    if total <= 0 or any(weight < 0 for weight, _ in parts):
        raise ValueError("weights must not be negative, and one must be positive")

    def similarity(profiles: Sequence[Profile]) -> NDArray[np.float64]:
        return np.asarray(sum(weight / total * part(profiles) for weight, part in parts), dtype=float)

    return similarity


def consistency(profiles: Sequence[Profile], similarity: Similarity = schema_cooccurrence) -> float:
    """Mean similarity over all k² pairs of one shopper's k profiles, p = q included (eq. 5).

    Returns:
        A value in 0..1; it cannot fall below 1/k unless profiles are empty.

    Raises:
        ValueError: if there are no profiles.
    """
    if not profiles:
        raise ValueError("consistency needs at least one profile")
    return float(similarity(profiles).mean())


def agreement(profiles: Sequence[Profile], similarity: Similarity = schema_cooccurrence) -> float:
    """Mean similarity between different profiles of one shopper: eq. 5 without its p = q terms.

    Raises:
        ValueError: if there are fewer than two profiles.
    """
    k = len(profiles)
    if k < 2:
        raise ValueError("agreement needs at least two profiles")
    matrix = similarity(profiles)
    return float((matrix.sum() - np.trace(matrix)) / (k * (k - 1)))


def resemblance(shoppers: Sequence[Sequence[Profile]], similarity: Similarity = schema_cooccurrence) -> float:
    """Mean similarity between profiles of different shoppers: what generic profiles score without knowing anybody.

    Args:
        shoppers: The profiles of each of at least two shoppers.

    Raises:
        ValueError: if there are fewer than two shoppers with profiles.
    """
    owner = np.repeat(np.arange(len(shoppers)), [len(profiles) for profiles in shoppers])
    if len(set(owner.tolist())) < 2:
        raise ValueError("resemblance needs the profiles of at least two shoppers")
    matrix = similarity([profile for profiles in shoppers for profile in profiles])
    return float(matrix[owner[:, None] != owner[None, :]].mean())


def discrimination(shoppers: Sequence[Sequence[Profile]], similarity: Similarity = schema_cooccurrence) -> float:
    """Agreement within shoppers minus resemblance between them: 0 in expectation for profiles that fit anybody.

    Within a shopper only pairs p != q count here: the p = q terms of eq. 5 give 1/k to anybody, noise included.
    Shoppers with a single profile say nothing about agreement and are left out of that mean.

    Raises:
        ValueError: if no shopper has two profiles, or fewer than two have any.
    """
    within = [agreement(profiles, similarity) for profiles in shoppers if len(profiles) > 1]
    if not within:
        raise ValueError("discrimination needs a shopper with at least two profiles")
    return float(np.mean(within)) - resemblance(shoppers, similarity)


SIMILARITIES = ("schema", "keywords", "semantic", "mixed")
"""Names of Sim of eq. 5; `mixed` is the mean of the other three."""


def similarity_named(name: str, encoder: Encoder) -> Similarity:
    """Sim of eq. 5 by its name.

    Args:
        encoder: For `semantic` and `mixed`.

    Raises:
        KeyError: if there is no such name.
    """
    semantic = semantic_similarity(encoder)
    mixed = weighted([(1.0, schema_cooccurrence), (1.0, keyword_overlap), (1.0, semantic)])
    return dict(zip(SIMILARITIES, (schema_cooccurrence, keyword_overlap, semantic, mixed), strict=True))[name]
