"""Embedding store: vectors on disk by encoder and text, so that a catalogue is embedded once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np

from programs.lm.single_flight import SingleFlight
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
        commit_every: Texts that the encoder is given at a time; one call of an encoder whose calls are paid.
        on_event: See `KeyValueStore`.
        wait: Sleeps so many seconds while somebody else has one of these texts encoded, so that it is paid once; raises
            to end the wait (`Ledger.wait`). None for an encoder that costs nothing: nobody waits for anybody.
        patience: Seconds to wait for another process, which may hang.

    Raises:
        InputError: the file is not an embedding store.
    """

    def __init__(
        self,
        path: Path,
        encoder: Encoder,
        commit_every: int = 256,
        on_event: OnEvent = ignore,
        wait: Callable[[float], None] | None = None,
        patience: float = 0.0,
    ) -> None:
        self.path = path
        self.encoder = encoder
        self.commit_every = commit_every
        self._wait = wait
        self._patience = patience
        self._flights = SingleFlight.beside(path)
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
        vectors = self._stored(distinct)
        # Texts of like length are encoded together, over the whole catalogue: an encoder pads a batch to its longest
        # text. The longest come first, so that the time left is not underestimated.
        missing = sorted((key for key in distinct if key not in vectors), key=lambda key: -len(distinct[key]))
        for start in range(0, len(missing), self.commit_every):
            texts_now = {key: distinct[key] for key in missing[start : start + self.commit_every]}
            vectors |= self._computed(texts_now)
            if progress is not None:
                progress(start + len(texts_now), len(missing))
        if len({len(vector) for vector in vectors.values()}) > 1:
            raise InputError(
                f"{self.path}: vectors of different length under the encoder name {self.name!r}; delete the file"
            )
        return np.stack([vectors[_key(text)] for text in texts]) if texts else np.zeros((0, 0), dtype=np.float32)

    def _stored(self, keys: Iterable[bytes]) -> dict[bytes, Vectors]:
        """The vectors that the file holds, of those of some texts."""
        vectors: dict[bytes, Vectors] = {}
        for key in keys:
            stored = self._store.get(self.name, key)
            if stored is not None and (vector := _vector(stored[0])) is not None:
                vectors[key] = vector
        return vectors

    def _computed(self, texts: Mapping[bytes, str]) -> dict[bytes, Vectors]:
        """The vectors of texts that were not in the file when it was looked at; they are, when this returns."""
        with self._alone_with(texts):
            # Who had to wait finds what the other one has paid for.
            vectors = {} if self._wait is None else self._stored(texts)
            missing = [key for key in texts if key not in vectors]
            if missing:
                fresh = np.asarray(self.encoder.encode([texts[key] for key in missing]), dtype="<f4")
                computed = dict(zip(missing, fresh, strict=True))
                self._store.put_many({(self.name, key): (vector.tobytes(),) for key, vector in computed.items()})
                vectors |= computed
        return vectors

    def _alone_with(self, keys: Iterable[bytes]) -> AbstractContextManager[None]:
        if self._wait is None:
            return nullcontext()
        flights = (hashlib.sha256(self.name.encode() + key).hexdigest() for key in keys)
        return self._flights.flight_of_all(flights, self._wait, self._patience)


def _vector(stored: object) -> Vectors | None:
    """A stored vector; None for anything else, which is computed again."""
    try:
        vector: Vectors = np.frombuffer(stored, dtype="<f4").astype(np.float32)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        return None
    return vector if len(vector) and np.isfinite(vector).all() else None


def _key(text: str) -> bytes:
    return hashlib.sha256(clean_text(text).encode()).digest()
