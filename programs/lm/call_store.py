"""Answers of language models, kept on disk: what was paid for once is never paid for again.

Takes the place of DSPy's two-level cache, whose disk level stores pickles. SQLite with one JSON text per answer:
safe against `kill -9`, shared by processes, readable with any tool. Prompts are not stored, only their hashes.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
from dspy.clients.cache import Cache

from programs.database import open_database


class CallStore(Cache):
    """A `dspy.cache` that keeps answers in SQLite as JSON.

    Args:
        path: The database file; its folder is created. `:memory:` keeps nothing.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(enable_disk_cache=False, enable_memory_cache=False, disk_cache_dir=None)
        self._db = open_database(
            path, "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL)"
        )
        self._guard = threading.Lock()
        self.before_call = threading.local()

    def get(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> Any:
        """The stored answer, or None after the calling thread's `before_call.check` has let the call pass."""
        key = self.cache_key(request, ignored_args_for_cache_key)
        with self._guard:
            row = self._db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is not None:
            return json.loads(row[0])
        check: Callable[[], None] | None = getattr(self.before_call, "check", None)
        if check is not None:
            check()
        return None

    def put(
        self,
        request: dict[str, Any],
        value: Any,
        ignored_args_for_cache_key: list[str] | None = None,
        enable_memory_cache: bool = True,
    ) -> None:
        """Store an answer. One that is not plain data (a LiteLLM response object) is stored as its JSON form."""
        key = self.cache_key(request, ignored_args_for_cache_key)
        plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        with self._guard:
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(plain)))

    def close(self) -> None:
        """Close the database; the store cannot be used afterwards."""
        self._db.close()


def use_call_store(path: Path | str) -> CallStore:
    """Make a `CallStore` at `path` DSPy's cache in this process, and return it.

    DSPy has no other way to replace it: its engine reads the module attribute `dspy.cache` at every call.
    """
    store = CallStore(path)
    dspy.cache = store
    return store
