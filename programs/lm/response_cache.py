"""Persistent response cache (JSON in SQLite), keyed by request hash.

Replaces DSPy's two-level cache, whose disk level stores pickles. One JSON text per answer: safe against `kill -9`,
shared by processes, readable with any tool; a power cut may lose the last answers but damages nothing. Prompts are not
stored, only their hashes.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dspy
from dspy.clients.cache import Cache
from dspy.clients.call_result import CACHE_FORMAT, CallResult
from pydantic_core import to_json

from programs.lm.single_flight import SingleFlight
from programs.runtime.events import OnEvent, ignore
from programs.runtime.key_value_store import KeyValueStore

_SECONDS = "_seconds"
"""Key beside an answer's own keys for the seconds it took: a cache hit then has a latency and a price per hour."""

_MODEL, _ROLE = "_model", "_role"
"""Keys beside those for whom an answer was asked; answers of older versions have none."""

Stored = tuple[dict[str, Any], float | None]
"""An answer as plain data, and the seconds that it took when it was made (None if unknown)."""


class CurrentCall(threading.local):
    """State of the call under way, shared by the cache and the calling thread.

    Attributes:
        origin: Model and role that ask.
        settings: Part of the key beside the request itself: what DSPy put into the request when it made connections.
        anew: Whether a stored answer is passed over, and replaced by the new one.
        request: The last request looked up.
        key: Its key, so that its answer is stored without hashing the whole prompt again.
        check: Called before a request without a cached answer is sent, with a look into the cache for the moment at
            which it may be; returns what was found then, or None to send it, or raises to refuse it.
        answered: Called with an answer, as plain data, and its seconds, before it is stored.
        sent: `time.perf_counter()` when it was sent, None before.
        seconds: Seconds that the cached answer took when it was made; None if unknown.
    """

    def __init__(self) -> None:
        self.origin = ("", "")
        self.settings: dict[str, Any] = {}
        self.anew = False
        self.request: dict[str, Any] | None = None
        self.key = ""
        self.check: Callable[[Callable[[], Stored | None]], Stored | None] | None = None
        self.answered: Callable[[dict[str, Any], float], None] | None = None
        self.sent: float | None = None
        self.seconds: float | None = None


class ResponseCache(Cache):
    """A `dspy.cache` that keeps answers in SQLite as JSON.

    Attributes:
        flights: Of the questions whose answers are kept here, shared with other processes.

    Args:
        path: The database file; its folder is created. `:memory:` keeps nothing.
        on_event: See `KeyValueStore`.
    """

    def __init__(self, path: Path | str, on_event: OnEvent = ignore) -> None:
        super().__init__(enable_disk_cache=False, enable_memory_cache=False, disk_cache_dir=None)
        self._path = path
        self._store = KeyValueStore(path, "answers", {"key": "TEXT"}, {"answer": "TEXT NOT NULL"}, on_event)
        self.this_call = CurrentCall()
        self.flights = SingleFlight() if path == ":memory:" else SingleFlight.beside(Path(path))

    def get(self, request: dict[str, Any], ignored_args_for_cache_key: list[str] | None = None) -> Any:
        """The cached answer, or None after the calling thread's `this_call.check` has let the call pass."""
        key = self._key(request, ignored_args_for_cache_key)
        self.this_call.request, self.this_call.key = request, key

        def look() -> Stored | None:
            return None if self.this_call.anew else self.find(key)

        found = look()
        if found is None and self.this_call.check is not None:
            found = self.this_call.check(look)
        if found is None:
            return None
        answer, self.this_call.seconds = found
        return answer

    def put(
        self,
        request: dict[str, Any],
        value: Any,
        ignored_args_for_cache_key: list[str] | None = None,
        enable_memory_cache: bool = True,
    ) -> None:
        """Store an answer, in its JSON form; one without any text is not stored, so that it is asked for again."""
        known = request == self.this_call.request
        key = self.this_call.key if known else self._key(request, ignored_args_for_cache_key)
        plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
        if self.this_call.sent is not None:
            seconds = round(time.perf_counter() - self.this_call.sent, 4)
            if self.this_call.answered is not None:
                self.this_call.answered(plain, seconds)
            plain = {**plain, _SECONDS: seconds}
        self._put({key: asked_by(plain, *self.this_call.origin)})

    def find(self, key: str) -> Stored | None:
        """The answer stored under a key, and the seconds it took when it was made (None if unknown)."""
        stored = self._store.get(key)
        answer = None if stored is None else _stored_answer(stored[0])
        if answer is None:
            return None
        for beside in (_MODEL, _ROLE):
            answer.pop(beside, None)
        seconds = answer.pop(_SECONDS, None)
        return answer, seconds if isinstance(seconds, float | int) else None

    def keep(self, answers: Mapping[str, tuple[dict[str, Any], float | None]]) -> None:
        """Store answers as plain data with their seconds, where these are known, by key; all in one transaction."""
        self._put({key: _timed(plain, seconds) for key, (plain, seconds) in answers.items()})

    def keep_durably(self, answers: Mapping[str, dict[str, Any]]) -> None:
        """Store answers as plain data, by key; they are on disk when this returns.

        Raises:
            InputError: if they cannot be written.
        """
        self._store.put_durably(_rows(answers))

    def _put(self, answers: Mapping[str, dict[str, Any]]) -> None:
        if rows := _rows(answers):
            self._store.put_many(rows)

    def _key(self, request: dict[str, Any], ignored: list[str] | None) -> str:
        key: str = self.cache_key({**request, **self.this_call.settings}, ignored)
        return key

    def is_at(self, path: Path | str) -> bool:
        """Whether it is open, and keeps its answers in this file, which is still there."""
        return path != ":memory:" and path == self._path and Path(path).exists()

    def close(self) -> None:
        """Close the database; the cache cannot be used afterwards."""
        self._path = ":memory:"
        self._store.close()


def asked_by(plain: dict[str, Any], model: str, role: str) -> dict[str, Any]:
    """An answer with the model and the role that asked for it, to be stored."""
    return {**plain, _MODEL: model, _ROLE: role}


def _rows(answers: Mapping[str, dict[str, Any]]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """Those with a text, as the store keeps them."""
    return {(key,): (_text_of(plain),) for key, plain in answers.items() if any(_texts(plain))}


def _timed(plain: dict[str, Any], seconds: float | None) -> dict[str, Any]:
    return plain if seconds is None else {**plain, _SECONDS: round(seconds, 4)}


def _texts(answer: dict[str, Any]) -> Iterator[str | None]:
    """Texts of an answer in DSPy's own form, or in that of LiteLLM."""
    for output in answer.get("outputs") or ():
        yield output.get("text") if isinstance(output, dict) else output
    for choice in answer.get("choices") or ():
        yield (choice.get("message") or {}).get("content") or choice.get("text")


def _text_of(answer: dict[str, Any]) -> str:
    try:
        return to_json(answer, inf_nan_mode="constants").decode()
    except ValueError:  # Half an emoji, for example in a token: invalid text that JSON can escape.
        return json.dumps(answer)


def _stored_answer(text: object) -> dict[str, Any] | None:
    """A stored answer as plain data; None for anything that is not an answer, which is asked for again."""
    try:
        answer: dict[str, Any] = json.loads(text)  # type: ignore[arg-type]
        if answer.get("_dspy_format") == CACHE_FORMAT:
            CallResult.load(answer)
        return answer if any(_texts(answer)) else None
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None


def use_response_cache(path: Path | str, on_event: OnEvent = ignore) -> ResponseCache:
    """Make a `ResponseCache` at `path` DSPy's cache in this process, and return it.

    DSPy has no other way to replace it: its engine reads the module attribute `dspy.cache` at every call. One that is
    at this path already stays: a call under way looks at it more than once.
    """
    if isinstance(dspy.cache, ResponseCache) and dspy.cache.is_at(path):
        return dspy.cache
    cache = ResponseCache(path, on_event)
    dspy.cache = cache
    return cache
