"""Persistent response cache (JSON in SQLite), keyed by request hash.

Takes the place of DSPy's two-level cache, whose disk level stores pickles. SQLite with one JSON text per answer:
safe against `kill -9`, shared by processes, readable with any tool; a power cut may lose the last answers, and
damages nothing. Prompts are not stored, only their hashes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dspy
from dspy.clients.cache import Cache
from pydantic_core import to_json

from programs.runtime.key_value_store import KeyValueStore

_SECONDS = "_seconds"
"""Stored beside an answer's own keys: the seconds it took, so that a cache hit has a latency and a price per hour."""


class CurrentCall(threading.local):
    """What the cache and the thread that asks tell each other about the call under way.

    Attributes:
        request: What was looked up last.
        key: Its key, so that its answer is stored without hashing the whole prompt again.
        check: Called before a question is sent that has no cached answer; may refuse it by raising.
        answered: Called with an answer, as plain data, and its seconds, before it is stored: the backend is free again.
        sent: `time.perf_counter()` when it was sent, None before.
        seconds: What the cached answer took when it was sent; None where that is not known.
    """

    def __init__(self) -> None:
        self.request: dict[str, Any] | None = None
        self.key = ""
        self.check: Callable[[], None] | None = None
        self.answered: Callable[[dict[str, Any], float], None] | None = None
        self.sent: float | None = None
        self.seconds: float | None = None


class ResponseCache(Cache):
    """A `dspy.cache` that keeps answers in SQLite as JSON.

    Args:
        path: The database file; its folder is created. `:memory:` keeps nothing.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(enable_disk_cache=False, enable_memory_cache=False, disk_cache_dir=None)
        self._store = KeyValueStore(path, "answers", key={"key": "TEXT"}, value={"answer": "TEXT NOT NULL"})
        self.this_call = CurrentCall()

    def get(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> Any:
        """The cached answer, or None after the calling thread's `this_call.check` has let the call pass."""
        key = self.cache_key(request, ignored_args_for_cache_key)
        self.this_call.request, self.this_call.key = request, key
        stored = self._store.get(key)
        if stored is not None:
            answer = json.loads(stored[0])
            self.this_call.seconds = answer.pop(_SECONDS, None)
            return answer
        if self.this_call.check is not None:
            self.this_call.check()
        return None

    def put(
        self,
        request: dict[str, Any],
        value: Any,
        ignored_args_for_cache_key: list[str] | None = None,
        enable_memory_cache: bool = True,
    ) -> None:
        """Store an answer. One that is not plain data (a LiteLLM response object) is stored as its JSON form."""
        known = request == self.this_call.request
        key = self.this_call.key if known else self.cache_key(request, ignored_args_for_cache_key)
        plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        if self.this_call.sent is not None:
            seconds = round(time.perf_counter() - self.this_call.sent, 4)
            if self.this_call.answered is not None:
                self.this_call.answered(plain, seconds)
            plain = {**plain, _SECONDS: seconds}
        try:
            answer = to_json(plain, inf_nan_mode="constants").decode()
        except ValueError:  # Half an emoji, say as one of the likeliest tokens: no text, but JSON can say it.
            answer = json.dumps(plain)
        self._store.put((key,), (answer,))

    def close(self) -> None:
        """Close the database; the cache cannot be used afterwards."""
        self._store.close()


def use_response_cache(path: Path | str) -> ResponseCache:
    """Make a `ResponseCache` at `path` DSPy's cache in this process, and return it.

    DSPy has no other way to replace it: its engine reads the module attribute `dspy.cache` at every call.
    """
    cache = ResponseCache(path)
    dspy.cache = cache
    return cache
