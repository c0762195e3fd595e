"""The four commands that pay for many calls, each as a process of its own, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from evaluate.runs.directory import JOURNAL, LEDGER, METRICS
from mllm3rec.cli.main import main
from optimize.artifact import MANIFEST, SEARCH_FOLDER
from optimize.freezing import TRIALS
from programs.lm.ledger import Call, read_calls
from programs.lm.prices import Price
from programs.runtime.environment import variable
from tests.soak.counting_server import PROCESSES, CountingServer
from tests.support.cases import cases_file
from tests.support.runs import judgements, rows_in

WORKERS = 3
_GRID = """
mope = ["a", "b"]
mote = ["a"]
mar = ["a"]
workers = {workers}
[backends.a]
model = "{url}#a"
[backends.b]
model = "{url}#b"
"""
_STUDY = """
name = "small"
reference = "prior"
workers = {workers}
[[datasets]]
name = "shop"
source = "demo"
[[protocols]]
name = "warm"
users = {users}
negatives = 9
draws = 1
[[rankers]]
ranker = "prior"
[[rankers]]
ranker = "listwise"
model = "{model}"
[[rankers]]
ranker = "pointwise"
model = "{model}"
"""


def small_study(model: str, users: int) -> str:
    """A study of two programs on one model."""
    return _STUDY.format(model=model, users=users, workers=WORKERS)


def _evaluate(folder: Path, url: str) -> list[object]:
    cases_file(folder / "cases.jsonl", 6, part="test")
    return ["evaluate", folder / "cases.jsonl", "--ranker", "pointwise", "--model", f"{url}#m", "--workers", WORKERS]


def _compile(folder: Path, url: str) -> list[object]:
    return [*_compile_by(folder, url), "--trials", 3, "--demo-sets", 1, "--wordings", 1, "--max-demos", 1]


def _compile_by(folder: Path, url: str) -> list[object]:
    cases_file(folder / "cases.jsonl", 6)
    return ["compile", folder / "cases.jsonl", "--model", f"{url}#m", "--workers", WORKERS, "--interactions", 1]


def _compare(folder: Path, url: str) -> list[object]:
    cases_file(folder / "cases.jsonl", 6, part="test")
    (folder / "grid.toml").write_text(_GRID.format(url=url, workers=WORKERS))
    return ["compare", folder / "cases.jsonl", "--grid", folder / "grid.toml"]


def _study(folder: Path, url: str) -> list[object]:
    (folder / "study.toml").write_text(small_study(f"{url}#m", users=5))
    return ["study", "run", folder / "study.toml"]


COMMANDS: dict[str, Callable[[Path, str], list[object]]] = {
    "evaluate": _evaluate,
    "compile": _compile,
    "compare": _compare,
    "study": _study,
}
"""From a folder for input files and a server's address to the command, without `--out`."""

OPTIMIZERS: dict[str, list[object]] = {
    "mipro": ["--trials", 3, "--demo-sets", 1, "--max-demos", 1],
    "gepa": ["--trials", 3],
    "random-search": ["--trials", 4, "--max-demos", 1],
    "labeled": ["--trials", 3, "--max-demos", 1],
}
"""DSPy's optimizers, names of further jobs, a compile each, and their options."""


@dataclass(frozen=True)
class Started:
    """A command under way."""

    process: BaseProcess
    server: CountingServer
    log: Path

    def wait_for(self, answers: int, seconds: float = 120.0) -> None:
        """Until the server has been asked so often in all, the command has ended, or the time is over."""
        end = time.monotonic() + seconds
        while self.process.is_alive() and self.server.total < answers and time.monotonic() < end:
            time.sleep(0.002)

    def signal(self, number: int) -> None:
        """Send a signal, if it has not ended."""
        if self.process.pid is not None and self.process.is_alive():
            os.kill(self.process.pid, number)

    def exit_code(self, seconds: float = 300.0) -> int | None:
        """Wait for its end; minus the number of the signal that killed it."""
        self.process.join(seconds)
        return self.process.exitcode

    @property
    def said(self) -> str:
        """Its output, without line breaks."""
        return " ".join(self.log.read_text().split())


@dataclass
class Job:
    """A command with a folder and a cache of its own.

    Args:
        name: One of `COMMANDS`, or of `OPTIMIZERS`.
        folder: Made if it is missing.
        cache: Below it, unless given.
        price: Of a million tokens, in and out; None for a model without a price.
    """

    name: str
    folder: Path
    server: CountingServer
    cache: Path | None = None
    price: Price | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.cache = self.cache or self.folder / "cache"
        optimizer = self.name in OPTIMIZERS
        self._arguments = (_compile_by if optimizer else COMMANDS[self.name])(self.folder, self.server.url)
        self._arguments += ["--optimizer", self.name, *OPTIMIZERS[self.name]] if optimizer else []
        self._environment = {variable("cache"): str(self.cache), variable("encoder"): "hashing"}
        if self.price is not None:
            prices = self.folder / "prices.toml"
            model = f'"{self.server.url}#m" = {{ input = {self.price.input}, output = {self.price.output} }}'
            prices.write_text(f'dated = 2026-01-01\nsource = "a test"\n[models]\n{model}\n')
            self._environment[variable("prices")] = str(prices)
        self._logs = 0

    @property
    def out(self) -> Path:
        """Where its results go."""
        return self.folder / "out"

    @contextmanager
    def started(self, *more: object) -> Iterator[Started]:
        """The command, killed at the end of the block if it has not ended."""
        self._logs += 1
        log = self.folder / f"log{self._logs}.txt"
        log.touch()
        arguments = [str(argument) for argument in (*self._arguments, "--out", self.out, *more)]
        process = PROCESSES.Process(target=run_command, args=(arguments, self._environment, str(log)))
        process.start()
        try:
            yield Started(process, self.server, log)
        finally:
            process.kill()
            process.join()

    def finish(self, *more: object) -> int | None:
        """Run to the end; the exit code."""
        with self.started(*more) as command:
            code = command.exit_code()
            assert "Traceback" not in command.said, command.log.read_text()
            return code

    def results(self) -> dict[str, Any]:
        """Everything that must not depend on what happened on the way: rows, metrics, trials, frozen files."""
        found: dict[str, Any] = {}
        for path in sorted(self.out.rglob(JOURNAL)):
            found[str(path.relative_to(self.out))] = judgements(rows_in(path.parent))
        for path in sorted(self.out.rglob(METRICS)):
            figures = json.loads(path.read_text())
            del figures["usage"]
            found[str(path.relative_to(self.out))] = figures
        trials = self.out / SEARCH_FOLDER / TRIALS
        if trials.exists():
            found[TRIALS] = json.loads(trials.read_text())
            manifest = json.loads((self.out / MANIFEST).read_text())
            found[MANIFEST] = [manifest["files"], manifest["trial"], manifest["verdict"]]
        return found

    def calls(self) -> list[Call]:
        """The calls in all its ledgers that were sent."""
        return [call for path in self.out.rglob(LEDGER) for call in read_calls(path) if not call.hit]


def run_command(arguments: list[str], environment: dict[str, str], log: str) -> None:
    """What a process of its own does: the command line, with its output in a file."""
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Under `nohup` the tests inherit an ignored SIGHUP, which a command rightly keeps.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    sys.argv = ["mllm3rec", *arguments]
    main()
