"""The fake server in a process of its own: an answer takes 20 ms, and is counted by its question when that arrives."""

from __future__ import annotations

import json
import multiprocessing
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from tests.support.compile_setup import sensitive
from tests.support.fake_server import Body, FakeOpenAI, Reply

LATENCY = 0.02
"""Seconds from a question to its answer."""

PROCESSES = multiprocessing.get_context("forkserver")
"""Servers and commands are forked from a process that has imported what they need."""
PROCESSES.set_forkserver_preload(
    [
        "tests.optimize.test_compile_resume",
        "tests.soak.counting_server",
        "mllm3rec.cli.main",
        "mllm3rec.api.compilation",
        "mllm3rec.api.evaluation",
        "mllm3rec.api.experiments",
        "openai",
        "optuna.storages._rdb.storage",
    ]
)


class CountingServer:
    """A handle on the process.

    Attributes:
        url: Base URL of the API.
    """

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.url: str = pipe.recv()

    @property
    def total(self) -> int:
        """Answers so far, those under way included."""
        self._pipe.send("total")
        count: int = self._pipe.recv()
        return count

    @property
    def tokens(self) -> tuple[int, int]:
        """Tokens in and out of all answers."""
        self._pipe.send("tokens")
        tokens: tuple[int, int] = self._pipe.recv()
        return tokens

    @property
    def counts(self) -> Counter[str]:
        """Answers by question."""
        self._pipe.send("counts")
        counts: Counter[str] = self._pipe.recv()
        return counts


@contextmanager
def counting_server(latency: float = LATENCY) -> Iterator[CountingServer]:
    """A server that runs until the end of the block."""
    ours, its = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_serve, args=(its, latency))
    process.start()
    its.close()
    try:
        yield CountingServer(ours)
    finally:
        ours.close()
        process.kill()
        process.join()


def _serve(pipe: Connection, latency: float) -> None:
    counts: Counter[str] = Counter()
    lock = threading.Lock()

    def respond(body: Body) -> Reply:
        with lock:
            counts[json.dumps(body, sort_keys=True)] += 1
        time.sleep(latency)
        return sensitive(body)

    with FakeOpenAI(respond) as server:
        pipe.send(server.url)
        while True:
            try:
                wanted = pipe.recv()
            except EOFError:
                return
            with lock:
                tokens = server.tokens_in, server.tokens_out
                pipe.send({"total": counts.total(), "tokens": tokens, "counts": counts}[wanted])
