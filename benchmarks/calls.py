"""Calls a second through the whole stack against a server that answers at once, next to a bare HTTP client.

    python benchmarks/calls.py [CALLS] [WORKERS]

Prints one JSON line: calls/s of `Backends.ask` on fresh questions, on stored answers, and of bare httpx.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
from model_server import started

from programs.lm.backends import Backends
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import local_roles
from programs.role_predictor import RolePredictor
from signatures.mar import score_candidate


def rate(call: Callable[[int], object], calls: int, workers: int) -> float:
    """Calls a second with so many threads."""
    started = time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(call, range(calls)))
    return calls / (time.perf_counter() - started)


def main(calls: int = 500, workers: int = 8) -> None:
    """Measure and print."""
    use_response_cache(":memory:")
    with started() as port:
        url = f"http://127.0.0.1:{port}/v1"
        asked = RolePredictor(score_candidate("profile", "traits"), "mar", Backends(local_roles(f"{url}#fake")), 4)

        def ask(n: int) -> object:
            return asked(shopper="- value (strong): much for little money", product=f"trait number {n}")

        fresh = rate(ask, calls, workers)
        stored = rate(ask, calls, workers)
        messages = [{"role": role, "content": "A text of some length. " * 40} for role in ("system", "user")]
        body = {"model": "bare", "messages": messages, "max_tokens": 4, "temperature": 0.0}
        with httpx.Client() as client:
            bare = rate(lambda _: client.post(f"{url}/chat/completions", json=body).json(), calls, workers)
    figures = {"fresh": round(fresh), "stored": round(stored), "bare_httpx": round(bare)}
    print(json.dumps({"calls": calls, "workers": workers, "per_second": figures}))


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:3]))
