"""An evaluation's calls a second next to those of a bare client, and its memory at two sizes.

    python benchmarks/throughput.py [USERS] [WORKERS]

A server of its own process, on a core of its own as if it were elsewhere, answers after 200 ms, 64 calls at a time. In
turn, a client that does nothing else sends it as many calls as it takes, and `run_cases` ranks USERS users (and a
quarter of them, for the memory) with the listwise program, with journal, ledger and response cache on disk; items were
distilled before, as `mllm3rec distill` does. Prints one JSON line; the ratio is what says something on a busy machine.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

from model_server import started

from evaluate.ranker_factory import Random
from evaluate.runs.journal import Journal, RunManifest
from evaluate.runs.run import run_cases
from programs.lm.backends import Backends
from programs.lm.ledger import Ledger
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import local_roles
from programs.prior.encoders import HashingEncoder
from programs.program import Parts, listwise
from programs.runtime.interrupts import map_in_threads
from programs.trait_store import TraitStore
from signatures.rows import Case
from signatures.types import Interaction, Item

LATENCY, SLOTS = 0.2, 64
WORKERS = SLOTS + SLOTS // 2
"""So many that there is always one ready to send when a slot is free: the others read answers and write prompts."""

PRODUCTS, CANDIDATES, PURCHASES = 2000, 30, 5


async def bare(port: int, calls: int) -> dict[str, float]:
    """A client without any library, with as many connections as the server has slots."""
    body = json.dumps(_typical_body()).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    left = iter(range(calls))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            writer.write(head + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            json.loads(await reader.readexactly(length))
        writer.close()

    started, busy = time.perf_counter(), time.process_time()
    await asyncio.gather(*(client() for _ in range(SLOTS)))
    seconds, busy = time.perf_counter() - started, time.process_time() - busy
    return {"calls_per_second": round(calls / seconds, 1), "cpu_ms_per_call": round(1000 * busy / calls, 2)}


def _typical_body() -> dict[str, Any]:
    products = "\n".join(f"{10 + n}: good for one thing, good for another, easy to use" for n in range(CANDIDATES))
    messages = [
        {"role": "system", "content": "Answer with `ranking`. " + "An instruction of some length. " * 40},
        {"role": "user", "content": f"{products}\nAnswer in JSON: ranking."},
    ]
    return {"model": "bare", "messages": messages, "max_tokens": 212, "temperature": 0.0}


def ranked(port: int, users: int, workers: int) -> dict[str, float]:
    """Rank so many invented users in this process: calls a second, CPU milliseconds a call, peak memory in MiB."""
    draw = random.Random(0)  # noqa: S311 - the same users every time
    catalogue = {f"I{n}": Item(item_id=f"I{n}", title=f"Product number {n} for some purpose") for n in range(PRODUCTS)}
    cases = []
    for n in range(users):
        chosen = draw.sample(list(catalogue), PURCHASES + CANDIDATES)
        history = tuple(Interaction(item_id=one) for one in chosen[:PURCHASES])
        cases.append(Case(user_id=f"U{n}", history=history, candidates=tuple(chosen[PURCHASES:]), target=chosen[-1]))
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder)
        store = use_response_cache(directory / "calls.sqlite")
        ledger = Ledger(directory / "ledger.jsonl")
        backends = Backends(local_roles(f"http://127.0.0.1:{port}/v1#fake"), ledger, limits={})
        traits = TraitStore(directory / "traits.sqlite")
        program = listwise(Parts(backends, catalogue, Random(), HashingEncoder(), traits))
        list(map_in_threads(lambda item: program.product(item=item), [*catalogue.values()], workers, ledger.stop))
        distilled = ledger.total().calls
        manifest = RunManifest(cases_sha256="0", ranker="listwise")
        started, busy = time.perf_counter(), time.process_time()
        with Journal.open(directory / "run", manifest) as journal:
            outcome = run_cases(cases, program, journal, ledger, workers)
        seconds, busy = time.perf_counter() - started, time.process_time() - busy
        ledger.close()
        store.close()
    calls = ledger.total().calls - distilled
    if not outcome.complete or calls != 3 * users:
        raise SystemExit(f"{outcome}, {calls} calls: the figures would say nothing")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "users": users,
        "calls": calls,
        "calls_per_second": round(calls / seconds, 1),
        "cpu_ms_per_call": round(1000 * busy / calls, 2),
        "peak_mib": round(peak),
    }


def _in_a_process(*arguments: object) -> dict[str, float]:
    finished = subprocess.run(  # noqa: S603 - this very file
        [sys.executable, __file__, *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=True
    )
    figures: dict[str, float] = json.loads(finished.stdout)
    return figures


def main(users: int = 1000, workers: int = WORKERS) -> None:
    """Measure and print."""
    with started(LATENCY, SLOTS) as port:
        alone = [asyncio.run(bare(port, 3 * users))]
        small = _in_a_process("rank", port, users // 4, workers)
        large = _in_a_process("rank", port, users, workers)
        alone.append(asyncio.run(bare(port, 3 * users)))
    ideal = sum(one["calls_per_second"] for one in alone) / len(alone)
    figures = {
        "ideal": SLOTS / LATENCY,
        "bare": alone,
        "runs": [small, large],
        "ratio_to_bare": round(large["calls_per_second"] / ideal, 3),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["rank", *numbers]:
            print(json.dumps(ranked(*map(int, numbers))))
        case numbers:
            main(*map(int, numbers))
