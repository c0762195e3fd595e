"""Trait store: distilled traits on disk, so that a catalogue is distilled once per prompt and model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from programs.runtime.environment import environment
from programs.runtime.events import OnEvent, ignore
from programs.runtime.key_value_store import KeyValueStore
from programs.runtime.nocopy import SharedByCopies
from signatures.rows import Usage

_PHRASES = TypeAdapter(tuple[str, ...])


def trait_key(text: str, prompt: str, model: str) -> str:
    """Hash of everything that traits depend on: the item's text, the whole prompt around it, and the model.

    Args:
        model: See `Backends.known_as`.
    """
    return hashlib.sha256("\x1f".join((text, prompt, model)).encode()).hexdigest()


@dataclass(frozen=True)
class Distilled:
    """The result of distilling one item, and its cost.

    Attributes:
        phrases: As the model wrote them, before validation.
        usage: Of the calls it took, cache hits counted as paid; None in files from before it was kept.
    """

    phrases: tuple[str, ...]
    usage: Usage | None = None


class TraitStore(SharedByCopies):
    """MOTE's phrases by `trait_key` in SQLite: safe against `kill -9`, shared by threads.

    Deep copies are the same store.

    Args:
        path: The database file; its folder is created. None keeps them in memory.
        on_event: See `KeyValueStore`.
    """

    def __init__(self, path: Path | None = None, on_event: OnEvent = ignore) -> None:
        # Files made before usage was kept have no such column.
        columns = {"phrases": "TEXT NOT NULL", "usage": "TEXT"}
        self._store = KeyValueStore(path or ":memory:", "phrases", {"key": "TEXT"}, columns, on_event)
        self._memo: dict[str, Any] = {}
        self._salt = environment().fresh or ""

    @property
    def memo(self) -> dict[str, Any]:
        """Validated traits by item id, in memory and as long as the store is open.

        The reader has to check that an entry still fits the item and the prompt.
        """
        return self._memo

    def get(self, key: str) -> Distilled | None:
        """The stored traits; None if there are none, or what is stored are no traits, which are distilled again."""
        stored = self._store.get(self._salt + key)
        if stored is None:
            return None
        phrases, usage = stored
        try:
            known = None if usage is None else Usage.model_validate_json(usage)
            return Distilled(_PHRASES.validate_json(phrases), known)
        except ValidationError:
            return None

    def put(self, key: str, phrases: Sequence[str], usage: Usage | None = None) -> None:
        """Store phrases; the later of two equal keys wins."""
        paid = None if usage is None else usage.model_dump_json()
        self._store.put((self._salt + key,), (json.dumps(list(phrases)), paid))

    def __len__(self) -> int:
        return self._store.count()
