"""llama.cpp engine: a GGUF file served inside this process on loopback, started when a role first asks."""

from __future__ import annotations

import hashlib
import os
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from programs.runtime.environment import cpu_threads, environment
from programs.runtime.errors import InputError, require_extra
from programs.runtime.events import Note, OnEvent, ignore
from programs.runtime.weights import PINNED

_HEAD = 1 << 20

_BYTES_A_THREAD = 100_000_000
"""Weights for which one thread writes a token faster than two, which have to wake each other some hundred times."""

_TOKENS_AT_A_TIME = 128
"""Of a prompt. The server notices only in between that nobody waits any more: with its 2048, Ctrl-C waits for the whole
prompt, and reading is no faster."""


_PROMPTS_KEPT_MIB = 512
"""Memory for prompts that left their slot, so that their prefix need not be read again: 1,000 tokens take 12 to 28 MiB.
The server's own bound is 8192, which a run of some hundred users fills."""

_TOKENS_OF_A_TEXT = 2048
"""Most tokens of a text that is embedded."""


def gguf_identity(path: Path) -> str:
    """A short name for the content of a GGUF file: `<stem>-<hash>`, the same wherever the file lies.

    The hash covers the whole file. Weights that this project fetches keep the name that their answers are stored under
    since its first version, once their whole content is known to be the pinned one.

    Raises:
        InputError: if the file is missing or is no GGUF file.
    """
    if not path.is_file():
        raise InputError(f"no model file at {path}")
    status = path.stat()
    return _identity(path, status.st_size, status.st_mtime_ns)


@lru_cache
def _identity(path: Path, size: int, mtime_ns: int) -> str:
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if head[:4] != b"GGUF" or size < 1024:
            raise InputError(f"{path} is not a GGUF model file (it starts with {head[:4]!r})")
        file.seek(0)
        whole = hashlib.file_digest(file, "sha256").hexdigest()
        if whole not in PINNED:
            return f"{path.stem.lower()}-{whole[:16]}"
        file.seek(max(0, size - _HEAD))
        tail = file.read()
    return f"{path.stem.lower()}-{hashlib.sha256(size.to_bytes(8, 'big') + head + tail).hexdigest()[:8]}"


@dataclass
class LocalEngine:
    """One llama.cpp server per model file, listening on 127.0.0.1 until the process ends.

    Attributes:
        threads: CPU threads of a server; where None, `MLLM3REC_THREADS`. Where neither is set, prompts are read by one
            for each core of this process, and tokens written by as many as the model has work for.
        context: Tokens of context, shared by `slots` conversations. Several slots let the prompts of several
            questions keep their prefixes at the same time.
        embeddings: Whether the servers give vectors of texts instead of chatting.
    """

    threads: int | None = None
    context: int = 16384
    slots: int = 4
    embeddings: bool = False
    _servers: dict[tuple[Path, bool], Any] = field(default_factory=dict, repr=False)
    _key: str = field(default_factory=lambda: secrets.token_urlsafe(32), repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def serve(self, path: Path, on_event: OnEvent = ignore, deterministic: bool = False) -> tuple[str, str]:
        """Start (once) the server for this model file.

        Args:
            on_event: Told before a model is loaded.
            deterministic: Whether the same question gets the same answer, whatever was asked before: a server of its
                own, with one slot, that reads every prompt from its first token.

        Returns:
            The base URL of its OpenAI-compatible API, and the key that it wants: another program of this machine, or
            a page in the user's browser, cannot use it.

        Raises:
            InputError: if the file is no loadable model.
            MissingExtraError: if the extra `local` is not installed.
        """
        path = path.resolve()
        with self._lock:
            if (path, deterministic) not in self._servers:
                gguf_identity(path)
                self._servers[path, deterministic] = self._start(path, on_event, deterministic)
            return f"{self._servers[path, deterministic].listening_address}/v1", self._key

    def _start(self, path: Path, on_event: OnEvent = ignore, deterministic: bool = False) -> Any:
        with _sleeping_openmp_threads():
            xllamacpp = require_extra("xllamacpp", "local", "a GGUF model")
        set_threads = self.threads or environment().threads
        size = path.stat().st_size if path.exists() else 0
        threads = set_threads or cpu_threads()
        on_event(Note(f"loading {path.stem} ({size / 1e6:.0f} MB, {threads} threads)"))
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.api_keys = [self._key]
        params.cors_origins = ""
        params.ui = params.endpoint_slots = params.endpoint_props = False
        params.n_ctx = self.context
        params.n_parallel = self.slots
        params.n_batch = _TOKENS_AT_A_TIME
        if self.embeddings:
            params.embedding = True
            # A text is read at once: its tokens may look ahead.
            params.n_batch = params.n_ubatch = _TOKENS_OF_A_TEXT
            if not _names_pooling(path):
                params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
        params.cache_ram_mib = _PROMPTS_KEPT_MIB
        params.kv_unified = True
        params.cpuparams.n_threads = set_threads or min(threads, max(1, size // _BYTES_A_THREAD))
        params.cpuparams_batch.n_threads = threads
        params.warmup = False
        params.verbosity = -1
        if deterministic:
            # A prefix that an earlier prompt left behind was computed in pieces of other lengths, and sums of other
            # pieces round differently; so does attention where other conversations lie in between.
            params.n_parallel = 1
            params.cache_prompt = False
            params.cache_ram_mib = 0
        try:
            return xllamacpp.Server(params)
        except RuntimeError as error:
            raise InputError(f"{path} could not be loaded as a model: {error}") from error


@contextmanager
def _sleeping_openmp_threads() -> Iterator[None]:
    """Let the threads of an OpenMP library that is loaded inside the block sleep while they wait for each other.

    By default they spin. Wherever another thread wants one of the cores, if only Python's, the spinning one then waits
    for one that cannot run: on two busy cores 100 tokens took 60 s instead of 4 s (docs/results.md). A policy that the
    user has set stays.
    """
    name = "OMP_WAIT_POLICY"
    ours = name not in os.environ
    if ours:
        os.environ[name] = "passive"
    try:
        yield
    finally:
        if ours:
            del os.environ[name]


def _names_pooling(path: Path) -> bool:
    """Whether a model says how the states of its tokens become one vector; models made for chat do not."""
    with path.open("rb") as file:
        return b".pooling_type" in file.read(_HEAD)


ENGINE = LocalEngine()
"""The process-wide engine: two roles on one file share one server."""

EMBEDDER = LocalEngine(embeddings=True)
"""The process-wide engine for vectors of texts."""
