"""Distilled traits on disk, so that a catalogue is distilled once per prompt and model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from programs.runtime.database import open_database
from signatures.rows import Usage


def trait_key(product: str, prompt: str, model: str) -> str:
    """What the traits of an item depend on: its text, the whole prompt around it, and the model."""
    return hashlib.sha256("\x1f".join((product, prompt, model)).encode()).hexdigest()


@dataclass(frozen=True)
class Distilled:
    """What distilling one product gave, and took.

    Attributes:
        phrases: As the model wrote them, before validation.
        usage: Of the calls it took, answers from the call store counted as paid; None where it was not kept.
    """

    phrases: tuple[str, ...]
    usage: Usage | None = None


class TraitStore:
    """MOTE's phrases by `trait_key` in SQLite: safe against `kill -9`, shared by threads.

    Deep copies are the same store.

    Args:
        path: The database file; its folder is created. None keeps them in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        table = "CREATE TABLE IF NOT EXISTS phrases (key TEXT PRIMARY KEY, phrases TEXT NOT NULL, usage TEXT)"
        self._db = open_database(path or ":memory:", table)
        columns = {row[1] for row in self._db.execute("PRAGMA table_info(phrases)")}
        if "usage" not in columns:  # made before usage was kept
            self._db.execute("ALTER TABLE phrases ADD COLUMN usage TEXT")
        self._lock = threading.Lock()
        self._memo: dict[str, Any] = {}

    @property
    def memo(self) -> dict[str, Any]:
        """What readers made of stored phrases, by item id, in memory and as long as the store is open.

        It says nothing of what an entry depends on: whoever reads one checks that.
        """
        return self._memo

    def __deepcopy__(self, memo: dict[int, object]) -> TraitStore:
        return self

    def get(self, key: str) -> Distilled | None:
        """What is stored, or None."""
        with self._lock:
            row = self._db.execute("SELECT phrases, usage FROM phrases WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        usage = None if row[1] is None else Usage.model_validate_json(row[1])
        return Distilled(tuple(json.loads(row[0])), usage)

    def put(self, key: str, phrases: Sequence[str], usage: Usage | None = None) -> None:
        """Store phrases; the later of two equal keys wins."""
        said = None if usage is None else usage.model_dump_json()
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO phrases VALUES (?, ?, ?)", (key, json.dumps(list(phrases)), said))

    def __len__(self) -> int:
        with self._lock:
            (count,) = self._db.execute("SELECT COUNT(*) FROM phrases").fetchone()
        return int(count)
