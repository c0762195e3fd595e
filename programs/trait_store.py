"""Distilled traits on disk, so that a catalogue is distilled once per prompt and model."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

from programs.database import open_database
from signatures.types import Traits


def trait_key(product: str, prompt: str, model: str) -> str:
    """What the traits of an item depend on: its text, the whole prompt around it, and the model."""
    return hashlib.sha256("\x1f".join((product, prompt, model)).encode()).hexdigest()


class TraitStore:
    """Traits by `trait_key`, in SQLite: safe against `kill -9`, shared by threads and processes.

    Deep copies are the same store.

    Args:
        path: The database file; its folder is created. None keeps them in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._db = open_database(
            path or ":memory:", "CREATE TABLE IF NOT EXISTS traits (key TEXT PRIMARY KEY, traits TEXT NOT NULL)"
        )
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> TraitStore:
        return self

    def get(self, key: str) -> Traits | None:
        """The stored traits, or None."""
        with self._lock:
            row = self._db.execute("SELECT traits FROM traits WHERE key = ?", (key,)).fetchone()
        return None if row is None else Traits.model_validate_json(row[0])

    def put(self, key: str, traits: Traits) -> None:
        """Store traits; the later of two equal keys wins."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO traits VALUES (?, ?)", (key, traits.model_dump_json()))

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._db.execute("SELECT COUNT(*) FROM traits").fetchone()
        return int(count)
