"""Consistency of the k profiles of one user (eq. 5), and resemblance between the profiles of different users.

The paper tunes prompts by consistency, which is maximal for identical or generic profiles; resemblance detects those.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from programs.prior.encoders import Encoder
from signatures.types import Profile

Similarity = Callable[[Sequence[Profile]], NDArray[np.float64]]
"""Gives the (n, n) similarities of n profiles, 0..1; an empty profile has similarity 0, also with itself."""

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
    """Jaccard overlap of the dimensions of two profiles."""
    return _jaccard([frozenset(m.dimension for m in profile.motivations) for profile in profiles])


def keyword_overlap(profiles: Sequence[Profile]) -> NDArray[np.float64]:
    """Jaccard overlap of the words in two profiles' descriptions and needs, without words of one or two letters."""
    return _jaccard(
        [
            frozenset(word for phrase in profile.phrases for word in _WORD.findall(phrase.lower()))
            for profile in profiles
        ]
    )


def semantic_similarity(encoder: Encoder) -> Similarity:
    """Cosine of the mean embedding of two profiles' descriptions and needs, negative values counted as 0."""

    def similarity(profiles: Sequence[Profile]) -> NDArray[np.float64]:
        phrases = [phrase for profile in profiles for phrase in profile.phrases]
        if not phrases:
            return np.zeros((len(profiles), len(profiles)))
        vectors = np.asarray(encoder.encode(phrases), dtype=float)
        means = np.zeros((len(profiles), vectors.shape[1]))
        start = 0
        for row, profile in enumerate(profiles):
            end = start + len(profile.phrases)
            if end > start:
                mean = vectors[start:end].mean(axis=0)
                means[row] = mean / (np.linalg.norm(mean) or 1.0)
            start = end
        return np.clip(means @ means.T, 0.0, 1.0)

    return similarity


def weighted(parts: Sequence[tuple[float, Similarity]]) -> Similarity:
    """Weighted mean of similarities; weights are normalised to sum 1.

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
    """Mean similarity over all k² pairs of one user's k profiles, p = q included (eq. 5).

    Returns:
        A value in 0..1; at least 1/k unless profiles are empty.

    Raises:
        ValueError: if there are no profiles.
    """
    if not profiles:
        raise ValueError("consistency needs at least one profile")
    return float(similarity(profiles).mean())


def agreement(profiles: Sequence[Profile], similarity: Similarity = schema_cooccurrence) -> float:
    """Mean similarity between different profiles of one user: eq. 5 without its p = q terms.

    Raises:
        ValueError: if there are fewer than two profiles.
    """
    k = len(profiles)
    if k < 2:
        raise ValueError("agreement needs at least two profiles")
    matrix = similarity(profiles)
    return float((matrix.sum() - np.trace(matrix)) / (k * (k - 1)))


def resemblance(users: Sequence[Sequence[Profile]], similarity: Similarity = schema_cooccurrence) -> float:
    """Mean similarity between profiles of different users; high for generic profiles.

    Args:
        users: The profiles of each of at least two users.

    Raises:
        ValueError: if there are fewer than two users with profiles.
    """
    owner = np.repeat(np.arange(len(users)), [len(profiles) for profiles in users])
    if len(set(owner.tolist())) < 2:
        raise ValueError("resemblance needs the profiles of at least two users")
    matrix = similarity([profile for profiles in users for profile in profiles])
    return float(matrix[owner[:, None] != owner[None, :]].mean())


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
