"""Load on `mllm3rec serve`: requests a second, p95, a reload, a restart of the model server, and the budget.

    python benchmarks/serve.py [--clients 64] [--seconds 20] [--latency 0.2] [--dataset demo]

The models are `benchmarks/model_server.py` on loopback. Every request is another new user, so that its profile and its
ranking are asked for; traits are asked for once an item. A line a phase: requests a second, seconds, and who answered.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from model_server import started

from evaluate.data.load import load_dataset
from evaluate.runs.directory import MANIFEST
from evaluate.stats.intervals import Difference, Estimate
from optimize.artifact import ArtifactManifest, CompileData, save_artifact
from optimize.holdout import HoldoutVerdict
from optimize.objective import ObjectiveWeights
from programs.lm.backends import Backends
from programs.lm.ledger import Ledger, read_calls
from programs.lm.model_options import ModelOptions
from programs.lm.sliding_window import MINUTE
from programs.prior.encoders import HashingEncoder
from programs.prior.scorers import Popularity
from programs.program import PROGRAMS, Parts
from programs.trait_store import TraitStore
from signatures.schema import CONSUMER

HISTORY = 6


def freeze(folder: Path, model: str, weight: float) -> str:
    """An artifact of the uncompiled program `listwise`, and its hash; another weight makes another artifact."""
    roles = ModelOptions("local", model).roles()
    parts = Parts(Backends(roles, Ledger()), {}, Popularity({}), HashingEncoder(), TraitStore())
    zero = Estimate(mean=0.0, low=0.0, high=0.0, n=1)
    none = Difference(mean=0.0, low=0.0, high=0.0, n=1, unpaired=0)
    manifest = ArtifactManifest(
        family="listwise",
        roles=roles,
        weight=weight,
        motivations=CONSUMER,
        optimizer="none",
        weights=ObjectiveWeights(),
        similarity="lexical",
        interactions=0,
        data=CompileData(
            dataset="none", dataset_sha256="", cases_sha256="", target="last", negatives=0, searched=(), held_out=()
        ),
        verdict=HoldoutVerdict(
            judgement="not better", before={"score": zero}, after={"score": zero}, difference={"score": none}
        ),
    )
    return save_artifact(folder, PROGRAMS["listwise"](parts), manifest).sha256


@contextmanager
def service(folder: Path, artifact: Path, dataset: str, *options: str) -> Iterator[str]:
    """The address of a service in a process of its own."""
    environment = os.environ | {"MLLM3REC_CACHE": str(folder / "cache"), "MLLM3REC_ENCODER": "hashing"}
    command = [sys.executable, "-m", "mllm3rec", "serve", str(artifact), dataset, "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)  # noqa: S603
    assert process.stderr is not None  # noqa: S101 - a pipe was asked for
    try:
        line = next(line for line in process.stderr if "serving" in line)
        yield line.split(" at ")[1].split()[0]
    finally:
        process.terminate()
        rest = process.stderr.read()
        if process.wait() != 0:
            print(rest, file=sys.stderr)


async def load(
    url: str, items: list[str], clients: int, seconds: float, during: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """What clients got that ask one request after the other for some seconds; `during` runs in a thread meanwhile."""
    rows: list[dict[str, Any]] = []
    end = time.monotonic() + seconds

    async def client(session: aiohttp.ClientSession, chance: random.Random) -> None:
        while time.monotonic() < end:
            body = {"history": chance.sample(items, HISTORY), "k": 5}
            began = time.monotonic()
            try:
                async with session.post(f"{url}/recommend", json=body) as answer:
                    row = await answer.json() | {"status": answer.status}
            except (aiohttp.ClientError, OSError) as error:
                row = {"status": type(error).__name__}
            rows.append(row | {"took": time.monotonic() - began})

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        tasks = [client(session, random.Random(n + 1000 * time.time_ns())) for n in range(clients)]  # noqa: S311
        await asyncio.gather(asyncio.to_thread(during), *tasks)
    return rows


def show(phase: str, rows: list[dict[str, Any]], seconds: float, **more: object) -> None:
    """One line of figures."""
    took = np.array([row["took"] for row in rows])
    answers = Counter(row.get("why") or row.get("answered_by") or row["status"] for row in rows)
    figures = {
        "phase": phase,
        "requests": len(rows),
        "lost": sum(row["status"] != 200 for row in rows),
        "a_second": round(len(rows) / seconds, 1),
        "p50": round(float(np.quantile(took, 0.5)), 3),
        "p95": round(float(np.quantile(took, 0.95)), 3),
        "answers": dict(answers),
        "artifacts": len({row.get("artifact") for row in rows}),
    }
    print(json.dumps(figures | more), flush=True)


def replace(artifact: Path, other: Path) -> None:
    """Put another artifact in the place of one, as an update does."""
    time.sleep(2.0)
    shutil.copytree(other, artifact, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST))
    shutil.copy(other / MANIFEST, artifact / MANIFEST)


def dearest_minute(ledger: Path) -> float:
    """The most dollars of any sixty seconds, by the times at which calls ended."""
    files = [*sorted(ledger.parent.glob(f"{ledger.stem}.0*{ledger.suffix}")), ledger]
    ended = (call for file in files for call in read_calls(file) if not call.hit and not call.in_flight)
    calls = sorted((call.at, call.at_most_usd) for call in ended)
    return max((sum(usd for at, usd in calls if start <= at < start + MINUTE) for start, _ in calls[::20]), default=0.0)


def main() -> None:
    """All phases, one after the other."""
    options = argparse.ArgumentParser()
    options.add_argument("--clients", type=int, default=64)
    options.add_argument("--seconds", type=float, default=20.0)
    options.add_argument("--latency", type=float, default=0.2)
    options.add_argument("--dataset", default="demo")
    given = options.parse_args()
    items = list(load_dataset(given.dataset).items)

    def run(url: str, during: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
        return asyncio.run(load(url, items, given.clients, given.seconds, during))

    with tempfile.TemporaryDirectory() as name, ExitStack() as first:
        folder = Path(name)
        port = first.enter_context(started(given.latency, 256))
        model = f"http://127.0.0.1:{port}/v1#fake"
        artifact, other = folder / "artifact", folder / "other"
        freeze(artifact, model, 0.3)
        freeze(other, model, 0.5)
        with service(folder, artifact, given.dataset) as url:
            show("warm-up", run(url), given.seconds)
            show("steady", run(url), given.seconds)
            show("reload", run(url, lambda: replace(artifact, other)), given.seconds)

            def restart() -> None:
                time.sleep(2.0)
                first.close()
                time.sleep(2.0)
                first.enter_context(started(given.latency, 256, port))

            show("model server restarted", run(url, restart), given.seconds)
        budget = 0.05
        prices = folder / "prices.toml"
        prices.write_text(f'dated = 2026-01-01\nsource = "x"\n[models]\n"{model}" = {{ input = 1.0, output = 4.0 }}\n')
        ledger = folder / "ledger.jsonl"
        spending = ("--usd-per-minute", str(budget), "--prices", str(prices), "--ledger", str(ledger))
        with service(folder, artifact, given.dataset, *spending) as url:
            rows = run(url)
        show("budget", rows, given.seconds, budget=budget, dearest_minute=round(dearest_minute(ledger), 5))


if __name__ == "__main__":
    main()
