"""Embedding store: vectors on disk by encoder and text, so that a catalogue is embedded once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from programs.prior.encoders import Encoder, OnProgress, Vectors, clean_text
from programs.runtime.environment import cache_dir
from programs.runtime.errors import InputError
from programs.runtime.events import OnEvent, ignore
from programs.runtime.key_value_store import KeyValueStore


def store_path() -> Path:
    """The embedding store of the cache folder."""
    return cache_dir() / "embeddings.sqlite"


class EmbeddingStore:
    """An encoder with a persistent cache: vectors by encoder name and sha256 of the text.

    Several encoders and datasets can share a file. Vectors are stored every `commit_every` texts, so a run that is
    killed loses at most that many. Usable from several threads and processes.

    Args:
        path: An SQLite file, made with its folder when missing; see `store_path`.
        encoder: Encodes texts that are not in the file yet.
        on_event: See `KeyValueStore`.

    Raises:
        InputError: the file is not an embedding store.
    """

    def __init__(self, path: Path, encoder: Encoder, commit_every: int = 256, on_event: OnEvent = ignore) -> None:
        self.path = path
        self.encoder = encoder
        self.commit_every = commit_every
        self._store = KeyValueStore(
            path,
            "vectors",
            key={"encoder": "TEXT NOT NULL", "sha256": "BLOB NOT NULL"},
            value={"vector": "BLOB NOT NULL"},
            on_event=on_event,
        )

    @property
    def name(self) -> str:
        """The encoder's name: the store changes no vector."""
        return self.encoder.name

    def __len__(self) -> int:
        """Number of texts held for this encoder."""
        return self._store.count(encoder=self.name)

    def encode(self, texts: Sequence[str], progress: OnProgress | None = None) -> Vectors:
        """The vectors of n texts as an (n, d) array; only those not in the file are computed.

        Args:
            texts: May repeat; each distinct text is computed once.
            progress: Called with (done, total) over the texts that have to be computed.

        Raises:
            InputError: the file holds vectors of another length under this name.
        """
        distinct = {_key(text): text for text in texts}
        vectors: dict[bytes, Vectors] = {}
        for key in distinct:
            stored = self._store.get(self.name, key)
            if stored is not None and (vector := _vector(stored[0])) is not None:
                vectors[key] = vector
        # Texts of like length are encoded together, over the whole catalogue: an encoder pads a batch to its longest
        # text. The longest come first, so that the time left is not underestimated.
        missing = sorted((key for key in distinct if key not in vectors), key=lambda key: -len(distinct[key]))
        for start in range(0, len(missing), self.commit_every):
            keys = missing[start : start + self.commit_every]
            fresh = np.asarray(self.encoder.encode([distinct[key] for key in keys]), dtype="<f4")
            computed = dict(zip(keys, fresh, strict=True))
            self._store.put_many({(self.name, key): (vector.tobytes(),) for key, vector in computed.items()})
            vectors |= computed
            if progress is not None:
                progress(start + len(keys), len(missing))
        if len({len(vector) for vector in vectors.values()}) > 1:
            raise InputError(
                f"{self.path}: vectors of different length under the encoder name {self.name!r}; delete the file"
            )
        return np.stack([vectors[_key(text)] for text in texts]) if texts else np.zeros((0, 0), dtype=np.float32)


def _vector(stored: object) -> Vectors | None:
    """A stored vector; None for anything else, which is computed again."""
    try:
        vector: Vectors = np.frombuffer(stored, dtype="<f4").astype(np.float32)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return None
    return vector if len(vector) and np.isfinite(vector).all() else None


def _key(text: str) -> bytes:
    return hashlib.sha256(clean_text(text).encode()).digest()
