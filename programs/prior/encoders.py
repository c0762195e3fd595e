"""Sentence encoders: their interface, several read as one, and a bag of hashed words for machines without weights."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from programs.runtime.errors import InputError

Vectors = NDArray[np.float32]
OnProgress = Callable[[int, int], None]
"""Called with (texts done, texts in all)."""


class Encoder(Protocol):
    """Turns texts into unit vectors whose dot product is a cosine similarity."""

    @property
    def name(self) -> str:
        """Identifies the vectors: two encoders of one name give the same vectors."""
        ...

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode n texts as an (n, d) float32 array with rows of length 1."""
        ...


def normalised(vectors: NDArray[Any]) -> Vectors:
    """Rows scaled to length 1, as float32; a zero row stays zero.

    >>> normalised(np.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 0, lengths, 1), dtype=np.float32)


class ConcatenatedEncoder:
    """Several encoders read as one: their vectors one after another, scaled to length 1 again.

    With m encoders the cosine of two texts is the mean of their m cosines.

    Args:
        encoders: Two or more.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        if len(encoders) < 2:
            raise InputError("a concatenation has at least two encoders")
        self.encoders = tuple(encoders)

    @property
    def name(self) -> str:
        """See `Encoder.name`."""
        return "+".join(encoder.name for encoder in self.encoders)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode n texts as an (n, sum of the d) array; see `Encoder.encode`."""
        return normalised(np.concatenate([encoder.encode(texts) for encoder in self.encoders], axis=1))


class HashingEncoder:
    """A bag of words hashed into d dimensions: similarity by shared words, for machines without any weights.

    It knows no synonyms and no word order, so content similarity is worth less than with sentence embeddings. The
    vector of a text is the same on every machine; a text without a word has a zero row.

    Each word adds 1 or -1, drawn from its hash, in one dimension drawn from its hash, so that collisions cancel in
    expectation (Weinberger et al., 2009, "Feature hashing for large scale multitask learning"). A word that occurs
    n times counts sqrt(n).

    >>> mug, cup, saw = HashingEncoder().encode(["Blue enamel mug", "mug of enamel", "hand saw"])
    >>> bool(mug @ cup > 0.6), abs(round(float(mug @ saw), 6))
    (True, 0.0)
    """

    def __init__(self, dimensions: int = 1024) -> None:
        if dimensions < 1:
            raise InputError(f"{dimensions} dimensions: a vector has at least one")
        self.dimensions = dimensions

    @property
    def name(self) -> str:
        """See `Encoder.name`."""
        return f"hashing-{self.dimensions}"

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Encode n texts as an (n, dimensions) array; see `Encoder.encode`."""
        vectors = np.zeros((len(texts), self.dimensions))
        for row, text in enumerate(texts):
            for word, count in Counter(re.findall(r"\w+", clean_text(text).lower())).items():
                place, sign = divmod(int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "big"), 2)
                vectors[row, place % self.dimensions] += (1 if sign else -1) * count**0.5
        return normalised(vectors)


def clean_text(text: str) -> str:
    """Catalogues of the web hold lone surrogates, which neither tokenizers nor JSON take."""
    return text.encode("utf-8", "replace").decode()
