"""Sentence embeddings: encoders, and a store on disk so that a catalogue is embedded once."""

from __future__ import annotations

import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from programs.runtime import weights
from programs.runtime.environment import cpu_threads
from programs.runtime.errors import InputError, require_extra

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


class MiniLMEncoder:
    """all-MiniLM-L6-v2 (int8 weights) on onnxruntime: d = 384, mean pooling, texts cut at 128 tokens.

    A text's vector does not depend on its neighbours in a batch beyond float32 rounding. Thread-safe.

    Args:
        files: `model.onnx` and `tokenizer.json`; by default those of `weights.locate("minilm")`.
        batch: Texts per call of the network.

    Raises:
        MissingExtraError: onnxruntime or tokenizers is not installed.
        InputError: the weights are not there.
    """

    max_tokens = 128
    name = "minilm-l6-v2-int8"

    def __init__(self, files: Mapping[str, Path] | None = None, batch: int = 32) -> None:
        purpose = "embedding texts on this machine"
        onnxruntime, tokenizers = (require_extra(name, "local", purpose) for name in ("onnxruntime", "tokenizers"))
        found = files if files is not None else weights.locate("minilm")
        if found is None:
            raise InputError(
                f"the MiniLM weights are not in {weights.folder('minilm')}: "
                "download them once with programs.runtime.weights.fetch('minilm')"
            )
        self.batch = batch
        self._tokenizer = tokenizers.Tokenizer.from_file(str(found["tokenizer.json"]))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self.max_tokens)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cpu_threads()
        # Threads that spin after their work take the cores from the language model beside it.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(
            str(found["model.onnx"]), options, providers=["CPUExecutionProvider"]
        )

    def encode(self, texts: Sequence[str], progress: OnProgress | None = None) -> Vectors:
        """Encode n texts as an (n, 384) array; see `Encoder.encode`."""
        tokens = [
            np.asarray(e.ids, dtype=np.int64) for e in self._tokenizer.encode_batch([clean_text(t) for t in texts])
        ]
        # Texts of like length share a batch: padding is computed like text.
        by_length = sorted(range(len(tokens)), key=lambda i: len(tokens[i]))
        vectors = np.zeros((len(tokens), 384), dtype=np.float32)
        for start in range(0, len(tokens), self.batch):
            rows = by_length[start : start + self.batch]
            vectors[rows] = self._pooled([tokens[i] for i in rows])
            if progress is not None:
                progress(start + len(rows), len(tokens))
        return normalised(vectors)

    def _pooled(self, tokens: Sequence[NDArray[np.int64]]) -> Vectors:
        ids = np.zeros((len(tokens), max(map(len, tokens))), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, text in enumerate(tokens):
            ids[row, : len(text)] = text
            mask[row, : len(text)] = 1
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        (states,) = self._session.run(["last_hidden_state"], feed)
        pooled: Vectors = (states * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
        return pooled


class OpenAIEncoder:
    """Embeddings from OpenAI's API (or a server that speaks it, by `OPENAI_BASE_URL`).

    The key comes from the environment variable `OPENAI_API_KEY` and from nowhere else. Texts are cut at 6000
    characters, which keeps them below the model's limit of 8191 tokens.

    Raises:
        InputError: the key is not set.
    """

    max_characters = 6000

    def __init__(self, model: str = "text-embedding-3-small", batch: int = 100) -> None:
        if not os.environ.get("OPENAI_API_KEY"):
            raise InputError(f"embedding with {model} needs an API key: set the environment variable OPENAI_API_KEY")
        from openai import OpenAI

        self.model = model
        self.batch = batch
        self._client = OpenAI()

    @property
    def name(self) -> str:
        """See `Encoder.name`."""
        return f"openai/{self.model}"

    def encode(self, texts: Sequence[str], progress: OnProgress | None = None) -> Vectors:
        """Encode n texts as an (n, d) array; see `Encoder.encode`. Raises the client's errors."""
        # The API refuses an empty text.
        clean = [clean_text(text)[: self.max_characters].strip() or "-" for text in texts]
        rows: list[list[float]] = []
        for start in range(0, len(clean), self.batch):
            answer = self._client.embeddings.create(model=self.model, input=clean[start : start + self.batch])
            rows += [datum.embedding for datum in sorted(answer.data, key=lambda datum: datum.index)]
            if progress is not None:
                progress(len(rows), len(clean))
        return normalised(np.asarray(rows, dtype=np.float32)) if rows else np.zeros((0, 0), dtype=np.float32)


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
