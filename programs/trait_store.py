"""Distilled traits on disk, so that a catalogue is distilled once per prompt and model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path

from programs.database import open_database


def trait_key(product: str, prompt: str, model: str) -> str:
    """What the traits of an item depend on: its text, the whole prompt around it, and the model."""
    return hashlib.sha256("\x1f".join((product, prompt, model)).encode()).hexdigest()


class TraitStore:
    """MOTE's phrases by `trait_key`, as the model wrote them, in SQLite: safe against `kill -9`, shared by threads.

    Deep copies are the same store.

    Args:
        path: The database file; its folder is created. None keeps them in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        table = "CREATE TABLE IF NOT EXISTS phrases (key TEXT PRIMARY KEY, phrases TEXT NOT NULL)"
        self._db = open_database(path or ":memory:", table)
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> TraitStore:
        return self

    def get(self, key: str) -> list[str] | None:
        """The stored phrases, or None."""
        with self._lock:
            row = self._db.execute("SELECT phrases FROM phrases WHERE key = ?", (key,)).fetchone()
        return None if row is None else json.loads(row[0])

    def put(self, key: str, phrases: Sequence[str]) -> None:
        """Store phrases; the later of two equal keys wins."""
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO phrases VALUES (?, ?)", (key, json.dumps(list(phrases))))

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._db.execute("SELECT COUNT(*) FROM phrases").fetchone()
        return int(count)
