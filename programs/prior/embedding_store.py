"""Embedding store: vectors on disk by encoder and text, so that a catalogue is embedded once."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np

from programs.prior.encoders import Encoder, Progress, Vectors, clean_text
from programs.runtime import weights
from programs.runtime.errors import InputError


def store_path() -> Path:
    """Where the product keeps its embeddings."""
    return weights.cache_dir() / "embeddings.sqlite"


class EmbeddingStore:
    """An encoder that remembers: vectors on disk by encoder name and sha256 of the text.

    Several encoders and datasets can share a file. Vectors are committed every `commit_every` texts, so a run
    that is killed loses at most that many. Usable from several threads and processes.

    Args:
        path: An SQLite file, made with its folder when missing; see `store_path`.
        encoder: Encodes what is not in the file yet.
    """

    def __init__(self, path: Path, encoder: Encoder, commit_every: int = 256) -> None:
        self.path = path
        self.encoder = encoder
        self.commit_every = commit_every

    @property
    def name(self) -> str:
        """The encoder's name: the store changes no vector."""
        return self.encoder.name

    def __len__(self) -> int:
        """Number of texts held for this encoder."""
        with self._open() as database:
            (count,) = database.execute("SELECT count(*) FROM vectors WHERE encoder = ?", [self.name]).fetchone()
            return int(count)

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vectors:
        """The vectors of n texts as an (n, d) array; only those not in the file are computed.

        Args:
            texts: May repeat; each distinct text is computed once.
            progress: Called with (done, total) over the texts that have to be computed.

        Raises:
            InputError: the file is no embedding store, or holds vectors of another length under this name.
        """
        distinct = {_key(text): text for text in texts}
        with self._open() as database:
            known = self._read(database, list(distinct))
            missing = [key for key in distinct if key not in known]
            for start in range(0, len(missing), self.commit_every):
                keys = missing[start : start + self.commit_every]
                fresh = np.asarray(self.encoder.encode([distinct[key] for key in keys]), dtype="<f4")
                rows = [(self.name, key, row.tobytes()) for key, row in zip(keys, fresh, strict=True)]
                with database:
                    database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)
                known.update(zip(keys, fresh, strict=True))
                if progress is not None:
                    progress(start + len(keys), len(missing))
        if len({len(vector) for vector in known.values()}) > 1:
            raise InputError(
                f"{self.path}: vectors of different length under the encoder name {self.name!r}; delete the file"
            )
        return np.stack([known[_key(text)] for text in texts]) if texts else np.zeros((0, 0), dtype=np.float32)

    def _read(self, database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, Vectors]:
        found: dict[bytes, Vectors] = {}
        for start in range(0, len(keys), 500):
            some = keys[start : start + 500]
            marks = ",".join("?" * len(some))
            query = f"SELECT sha256, vector FROM vectors WHERE encoder = ? AND sha256 IN ({marks})"  # noqa: S608 - marks only
            for key, blob in database.execute(query, [self.name, *some]):
                found[key] = np.frombuffer(blob, dtype="<f4").astype(np.float32)
        return found

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(sqlite3.connect(self.path, timeout=60)) as database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (encoder TEXT NOT NULL, sha256 BLOB NOT NULL, "
                    "vector BLOB NOT NULL, PRIMARY KEY (encoder, sha256))"
                )
                yield database
        except sqlite3.DatabaseError as error:
            raise InputError(
                f"{self.path}: cannot be used as an embedding store ({error}); choose another path or move it away"
            ) from error


def _key(text: str) -> bytes:
    return hashlib.sha256(clean_text(text).encode()).digest()
