"""Calls a second of the bulk engine next to other clients, on a server that answers at once, or after a time.

    python benchmarks/bulk.py [CALLS]                            all clients, a server that answers at once
    python benchmarks/bulk.py latency [CALLS]                    bulk and bare client, 200 ms and 64 slots
    python benchmarks/bulk.py memory [CALLS]                     memory of the bulk engine, every tenth of the calls

Every client runs in a process of its own, against a server in another (`instant_server.py`), and asks MOTE's question
with its demos, each call about another product. `bulk` and `general` keep ledger and response cache on disk. CPU time
is what says something on a busy machine; the load is printed beside it. Prints one JSON line for each client.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")

import aiohttp
import dspy
import httpx
import openai
from instant_server import started

from programs.bulk.backends import BulkBackends
from programs.bulk.driver import Driver
from programs.bulk.mapping import Loop
from programs.default_demos import TRAITS
from programs.lm.backends import Backends
from programs.lm.ledger import Ledger
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import local_roles
from programs.runtime.interrupts import map_in_threads
from signatures.mote import DistillTraits

SLOTS = 64
WARM = 100


def product(number: int) -> str:
    """An invented product."""
    return f"Product number {number} for some purpose\nToys > Puzzles > Wooden Puzzles\nMade of beech, oiled by hand."


def predictor() -> dspy.Predict:
    """MOTE's question."""
    asked = dspy.Predict(DistillTraits)
    asked.demos = list(TRAITS)
    return asked


@contextmanager
def backends(url: str) -> Iterator[Backends]:
    """Our models, with ledger and response cache on disk."""
    with tempfile.TemporaryDirectory() as folder:
        store = use_response_cache(Path(folder) / "calls.sqlite")
        ledger = Ledger(Path(folder) / "ledger.jsonl")
        yield Backends(local_roles(f"{url}#fake"), ledger, limits={})
        ledger.close()
        store.close()


Meter = Callable[[Callable[[int, int], None]], None]
"""Times a function that makes the calls with numbers from its first argument to its second."""


def bulk(url: str, meter: Meter) -> None:
    """The bulk engine."""
    with backends(url) as usual:
        driver, loop, asked = Driver(dspy.cache), Loop(usual.ledger), predictor()
        models = BulkBackends(usual, driver)

        def calls(first: int, last: int) -> None:
            for _ in loop.map(
                lambda n: models.ask("mote", asked, enough=104, product=product(n)), range(first, last), 3 * SLOTS
            ):
                pass

        meter(calls)
        loop.run(driver.close())
        loop.close()


def general(url: str, meter: Meter) -> None:
    """The general path, in threads."""
    with backends(url) as models:
        asked = predictor()

        def calls(first: int, last: int) -> None:
            def ask(number: int) -> object:
                return models.ask("mote", asked, enough=104, product=product(number))

            for _ in map_in_threads(ask, range(first, last), SLOTS, models.ledger.stop):
                pass

        meter(calls)


def predict(url: str, meter: Meter) -> None:
    """DSPy's own `Predict` with `dspy.LM`, in threads, without a cache."""
    _predict(url, meter, cache=False)


def predict_cached(url: str, meter: Meter) -> None:
    """The same with DSPy's cache in memory and on disk, as it is by default."""
    with tempfile.TemporaryDirectory() as folder:
        dspy.configure_cache(disk_cache_dir=folder)
        _predict(url, meter, cache=True)


def _predict(url: str, meter: Meter, cache: bool) -> None:
    lm = dspy.LM("openai/fake", api_base=url, api_key="none", cache=cache, max_tokens=104, temperature=0.0)
    asked = predictor()

    def calls(first: int, last: int) -> None:
        def ask(number: int) -> None:
            with dspy.context(lm=lm, adapter=dspy.JSONAdapter()):
                asked(product=product(number))

        with ThreadPoolExecutor(16) as pool:
            list(pool.map(ask, range(first, last)))

    meter(calls)


def body(url: str) -> dict[str, Any]:
    """What the bulk engine sends, with a mark for the product."""
    from programs.bulk.rendered import RenderedPrompt

    with backends(url) as models:
        asked = predictor()
        adapter = models.adapter_for("mote", asked)
        config = models.call_settings("mote", adapter, None, 104)
        prompt = RenderedPrompt(models.lm("mote"), adapter, asked, config, {"product": "MARK"})
        sent: dict[str, Any] = json.loads(prompt.texts({})[2])
        return sent


def of_product(template: dict[str, Any], number: int) -> dict[str, Any]:
    """The body for one product."""
    *first, last = template["messages"]
    return {
        **template,
        "messages": [*first, {**last, "content": last["content"].replace("MARK", product(number))}],
    }


def run(client: Callable[[int], Any], first: int, last: int) -> Any:
    """So many calls of an asynchronous client, as many at a time as there are slots."""
    numbers = iter(range(first, last))

    async def one_after_the_other() -> None:
        for number in numbers:
            await client(number)

    return asyncio.gather(*(one_after_the_other() for _ in range(SLOTS)))


def bare(url: str, meter: Meter) -> None:
    """aiohttp, which sends the same bodies and reads the answers as JSON."""
    template = body(url)

    def calls(first: int, last: int) -> None:
        async def all_of_them() -> None:
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

                async def ask(number: int) -> None:
                    async with session.post(f"{url}/chat/completions", json=of_product(template, number)) as answer:
                        json.loads(await answer.read())

                await run(ask, first, last)

        _run(all_of_them())

    meter(calls)


def bare_httpx(url: str, meter: Meter) -> None:
    """httpx in place of aiohttp."""
    template = body(url)

    def calls(first: int, last: int) -> None:
        async def all_of_them() -> None:
            async with httpx.AsyncClient(limits=httpx.Limits(max_connections=SLOTS)) as client:

                async def ask(number: int) -> None:
                    json.loads(
                        (await client.post(f"{url}/chat/completions", json=of_product(template, number))).content
                    )

                await run(ask, first, last)

        _run(all_of_them())

    meter(calls)


def openai_sdk(url: str, meter: Meter) -> None:
    """OpenAI's asynchronous client."""
    template = body(url)

    def calls(first: int, last: int) -> None:
        async def all_of_them() -> None:
            async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:

                async def ask(number: int) -> None:
                    await client.chat.completions.create(**of_product(template, number))

                await run(ask, first, last)

        _run(all_of_them())

    meter(calls)


def _run(awaitable: Any) -> None:
    try:
        import uvloop

        uvloop.run(awaitable)
    except ImportError:
        asyncio.run(awaitable)


CLIENTS: dict[str, Callable[[str, Meter], None]] = {
    one.__name__: one for one in (bare, bare_httpx, bulk, general, predict, predict_cached, openai_sdk)
}


def measure(name: str, port: int, calls: int, pieces: int = 1) -> None:
    """Print figures of one client in this process, for each of so many pieces of its calls."""

    def meter(make: Callable[[int, int], None]) -> None:
        make(-WARM, 0)
        for piece in range(pieces):
            first, last = piece * calls // pieces, (piece + 1) * calls // pieces
            began, busy = time.perf_counter(), time.process_time()
            make(first, last)
            seconds, busy = time.perf_counter() - began, time.process_time() - busy
            figures = {
                "client": name,
                "calls": last,
                "calls_per_second": round((last - first) / seconds),
                "cpu_ms_per_call": round(1000 * busy / (last - first), 3),
                "resident_mib": _resident(),
                "load": round(os.getloadavg()[0], 1),
            }
            print(json.dumps(figures), flush=True)

    CLIENTS[name](f"http://127.0.0.1:{port}/v1", meter)


def _resident() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) >> 10 for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def in_a_process(name: str, port: int, calls: int, pieces: int = 1) -> None:
    """Measure one client and print its lines."""
    command = [sys.executable, __file__, "client", name, str(port), str(calls), str(pieces)]
    subprocess.run(command, check=True)  # noqa: S603 - this very file


def main(*arguments: str) -> None:
    """Measure and print."""
    match arguments:
        case ["client", name, port, calls, pieces]:
            measure(name, int(port), int(calls), int(pieces))
        case ["latency", *calls]:
            with started(0.2) as port:
                for name in ("bare", "bulk", "bare"):
                    in_a_process(name, port, int(calls[0]) if calls else 4000)
        case ["memory", *calls]:
            with started() as port:
                in_a_process("bulk", port, int(calls[0]) if calls else 100_000, pieces=10)
        case calls:
            with started() as port:
                for name in CLIENTS:
                    in_a_process(name, port, int(calls[0]) if calls else 3000)


if __name__ == "__main__":
    main(*sys.argv[1:])
