"""Invented products distilled on a local Ray cluster of 1, 2 and 4 actors, and killed and resumed.

    python benchmarks/ray_bulk.py [--items 100000]

Needs the extra `ray`, and psutil. The server is a process of its own that answers at once (`instant_server.py`) and
counts what it is asked. First the direct path, one process without Ray; then each number of actors with a cache of its
own; then two actors whose driver gets SIGKILL when 40% are answered, and the same command again. Prints a JSON line for
each: calls a second are those of the middle 90% of calls, so without start; CPU seconds and peak memory are of all
processes of the job, by kind.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

os.environ.setdefault("MLLM3REC_ENCODER", "hashing")

import pandas as pd
import psutil
import pyarrow.parquet as pq
from instant_server import Instant, response

import mllm3rec as m3
from evaluate.data.records.interactions import INTERACTION_COLUMNS
from programs.lm.ledger import read_calls
from programs.runtime.events import ignore


def catalogue(items: int) -> m3.Dataset:
    """Invented products, each with a text of its own."""
    made = {
        f"P{n:06d}": m3.Item(
            item_id=f"P{n:06d}",
            title=f"Product number {n} for some purpose",
            description="Made of beech, oiled by hand.",
            categories=(("Toys", "Puzzles", "Wooden Puzzles"),),
        )
        for n in range(items)
    }
    return m3.Dataset("invented", made, pd.DataFrame(columns=list(INTERACTION_COLUMNS)))


class Counting(Instant):
    """A connection to a server that counts questions; GET asks for the number."""

    asked = 0

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if data.startswith(b"GET "):
            body = str(Counting.asked).encode()
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
            return
        Counting.asked += data.startswith(b"POST ")
        super().data_received(data)


async def serve() -> None:
    """Answer until the process ends."""
    answer = response()
    server = await asyncio.get_running_loop().create_server(lambda: Counting(0.0, answer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def counting_server() -> Iterator[str]:
    """The address of a server in a process of its own."""
    process = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        assert process.stdout is not None  # noqa: S101
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.terminate()


def asked(url: str) -> int:
    """How many questions the server got."""
    with urllib.request.urlopen(url) as answer:  # noqa: S310
        return int(answer.read())


class Watch(threading.Thread):
    """Peak memory (MB) and CPU seconds of this process and all below it, by kind."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()
        self.memory: Counter[str] = Counter()
        self._cpu: dict[tuple[int, str], float] = {}

    def run(self) -> None:
        """Look every second."""
        me = psutil.Process()
        while True:
            for process in (me, *me.children(recursive=True)):
                try:
                    name = "driver" if process.pid == me.pid else kind(process.name())
                    self.memory[name] = max(self.memory[name], process.memory_info().rss // 1_000_000)
                    self._cpu[process.pid, name] = sum(process.cpu_times()[:2])
                except psutil.Error:
                    continue
            if self.over.wait(1.0):
                return

    @property
    def cpu(self) -> dict[str, float]:
        """CPU seconds by kind."""
        total: Counter[str] = Counter()
        for (_, name), seconds in self._cpu.items():
            total[name] += seconds  # type: ignore[assignment]
        return {name: round(seconds, 1) for name, seconds in total.items()}


def kind(process: str) -> str:
    """What a process below the driver is."""
    if process.startswith("ray::MapWorker"):
        return "actor"
    return "Ray" if process.startswith(("ray", "gcs", "python")) else "other"


def job(items: int, actors: int, url: str, folder: Path) -> None:
    """One job; prints what it took."""
    watch, began = Watch(), time.monotonic()
    watch.start()
    done = m3.distill_all(
        catalogue(items),
        folder / "traits.parquet",
        cluster="local" if actors else None,
        processes=actors or 1,
        model=f"{url}/v1#fake",
        cache=folder / "cache",
        on_event=ignore,
    )
    seconds = time.monotonic() - began
    watch.over.set()
    watch.join()
    calls = list(read_calls(folder / "traits.parquet.ledger.jsonl"))
    times = sorted(call.at for call in calls if not call.hit)
    first, last = times[len(times) // 20], times[-1 - len(times) // 20]
    facts = {
        "actors": actors,
        "rows": sum(done.rows.values()),
        "calls_a_second": round(0.9 * len(times) / max(last - first, 1e-9)),
        "seconds": round(seconds, 1),
        "cpu_seconds": watch.cpu,
        "cpu_ms_a_call": round(1000 * sum(watch.cpu.values()) / items, 2),
        "peak_mb": dict(watch.memory),
        "in_flight_at_kill": sum(call.in_flight for call in calls),
        "load": round(os.getloadavg()[0], 1),
    }
    print(json.dumps(facts), flush=True)


def started(items: int, actors: int, url: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    """A job in a process of its own."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "job", str(items), str(actors), url, str(folder)]
    return subprocess.Popen(command, text=True, **options)  # noqa: S603


def rows(folder: Path) -> dict[str, Any]:
    """What was made, without what it took."""
    names = ["item_id", "traits", "occasions", "users", "dropped", "status"]
    return {row["item_id"]: row for row in pq.read_table(folder / "traits.parquet", columns=names).to_pylist()}


def main(items: int, actors: list[int]) -> None:
    """All jobs, one after the other."""
    with tempfile.TemporaryDirectory() as name, counting_server() as url:
        folder = Path(name)
        started(items, 0, url, folder / "direct").wait()
        direct, before = rows(folder / "direct"), asked(url)
        for number in actors:
            started(items, number, url, folder / str(number)).wait()
            now = asked(url)
            equal = rows(folder / str(number)) == direct
            print(json.dumps({"actors": number, "equal": equal, "asked": now - before}), flush=True)
            before = now
        killed = started(items, 2, url, folder / "killed")
        while asked(url) - before < 0.4 * items and killed.poll() is None:
            time.sleep(0.05)
        killed.kill()
        killed.wait()
        at_kill = asked(url) - before
        time.sleep(10)  # Ray's processes end when they see that the driver is gone
        after = asked(url) - before
        started(items, 2, url, folder / "killed").wait()
        total = asked(url) - before
        facts = {"asked_at_kill": at_kill, "until_workers_had_ended": after, "asked_in_all": total}
        print(json.dumps({**facts, "asked_twice": total - items, "equal": rows(folder / "killed") == direct}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        try:
            import uvloop

            uvloop.run(serve())
        except ImportError:
            asyncio.run(serve())
    elif sys.argv[1:2] == ["job"]:
        job(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
    else:
        parser = argparse.ArgumentParser()
        parser.add_argument("--items", type=int, default=100_000)
        parser.add_argument("--actors", type=int, nargs="*", default=[1, 2, 4])
        options = parser.parse_args()
        main(options.items, options.actors)
