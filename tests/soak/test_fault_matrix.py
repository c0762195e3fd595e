"""The fault matrix: what each command does with each way in which a server may fail, on a server on loopback.

A run of the cells with a star is part of every test run; `MLLM3REC_SOAK=1` runs them all (`make soak`).
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from evaluate.runs.directory import JOURNAL, LEDGER
from optimize.artifact import MANIFEST, SEARCH_FOLDER
from optimize.freezing import TRIALS
from programs.lm import circuit_breaker
from programs.runtime.environment import variable
from programs.runtime.errors import MESSAGE_CHARACTERS
from tests.soak import LONG
from tests.soak.faults import FAULTS, Fault
from tests.support.cases import cases_file
from tests.support.command_line import CommandLine, Ended
from tests.support.compile_setup import sensitive
from tests.support.flaky_server import FlakyOpenAI
from tests.support.runs import judgements, rows_in

MATRIX = """
fault                evaluate  recommend distill   compile   compare   study     attack
healthy              SAME      SAME      SAME      SAME      SAME      SAME      SAME
no server            FAILED*   FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
gone half way        FAILED    FAILED*   FAILED    FAILED    FAILED    FAILED    FAILED
401                  FAILED*   FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
403                  FAILED    FAILED    FAILED    FAILED    FAILED*   FAILED    FAILED
404                  FAILED    FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
429 at first         SAME*     SAME      SAME      SAME      SAME      SAME      SAME
429 for ever         FAILED    FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
500 at first         SAME      SAME      SAME      SAME      SAME      SAME      SAME
500 for ever         FAILED*   FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
400 for ever         FAILED    FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
a redirect           FAILED    FAILED    FAILED    FAILED    FAILED    FAILED    FAILED*
a reset              FAILED    FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
a cut body           FAILED*   FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
a byte a second      FAILED    FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
silence              FAILED*   FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
slow                 STOPPED*  STOPPED   STOPPED   STOPPED   STOPPED   STOPPED   STOPPED
a web page           FAILED    FAILED    FAILED    FAILED    FAILED    FAILED*   FAILED
an error text        FAILED    FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
an error object      FAILED*   FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
an error at first    SAME      SAME      SAME      SAME      SAME      SAME      SAME
no choices           FAILED    FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
choices null         FAILED    FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
content empty        FAILED    FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
content null         FAILED    FAILED    FAILED*   FAILED    FAILED    FAILED    FAILED
a tool call          FAILED    FAILED    FAILED    FAILED    FAILED    FAILED    FAILED
one item filtered    ONE*      ONE       ONE       ONE       ONE       ONE       ONE
one item refused     ONE       ONE       ONE*      ONE       ONE       ONE       ONE
one item too long    ONE       ONE       ONE       ONE       ONE       ONE       ONE
one user filtered    ONE       UNREAD    SAME      ONE*      ONE       ONE       ONE
one user too long    ONE*      UNREAD    SAME      ONE       ONE       ONE       ONE
refusals             UNREAD    UNREAD    UNREAD*   UNREAD    UNREAD    UNREAD    UNREAD
a code fence         SAME      SAME      SAME      SAME      SAME      SAME      SAME
chatter              SAME*     SAME      SAME      SAME      SAME      SAME      SAME
thoughts             SAME      SAME*     SAME      SAME      SAME      SAME      SAME
thinking cut off     SAME*     SAME      SAME      SAME      SAME      SAME      SAME
two choices          SAME      SAME      SAME      SAME      SAME      SAME      SAME
no usage             SAME      SAME      SAME      SAME      SAME      SAME      SAME
usage null           SAME      SAME      SAME      SAME      SAME      SAME      SAME
usage negative       SAME      SAME      SAME      SAME      SAME      SAME      SAME
usage NaN            SAME*     SAME      SAME      SAME      SAME      SAME      SAME
usage a text         SAME      SAME      SAME      SAME      SAME      SAME      SAME
cached above all     SAME      SAME      SAME      SAME      SAME      SAME      SAME
logprobs null        FINE      FINE      SAME      FINE      FINE      FINE      FINE
a logprob null       FINE*     FINE      SAME      FINE      FINE      FINE      FINE
a logprob NaN        FINE      FINE      SAME      FINE      FINE      FINE      FINE
a logprob a text     FINE      FINE      SAME      FINE      FINE      FINE      FINE
no response_format   SAME      SAME      SAME*     SAME      SAME      SAME      SAME
no top_logprobs      SAME      SAME      SAME      SAME      SAME      SAME      SAME
no max_tokens        SAME      SAME      SAME      SAME      SAME      SAME      SAME
half an emoji        FINE*     FINE      SAME      FINE      FINE      FINE      FINE
NUL                  FINE      FINE      FINE      FINE      FINE      FINE      FINE
nested objects       UNREAD*   UNREAD    UNREAD    UNREAD    UNREAD    UNREAD    UNREAD
brackets             UNREAD    UNREAD    UNREAD    UNREAD    UNREAD    UNREAD*   UNREAD
digits               UNREAD    UNREAD    UNREAD    UNREAD    UNREAD    UNREAD    UNREAD*
megabytes            UNREAD    UNREAD    UNREAD    UNREAD    UNREAD    UNREAD    UNREAD
no sense             UNREAD    UNREAD*   UNREAD    UNREAD*   UNREAD    UNREAD    UNREAD
labels twice         SAME      SAME      SAME      SAME      SAME      SAME      SAME
unknown labels       SAME      SAME      SAME      SAME      SAME      SAME      SAME
negative labels      SAME      SAME      SAME      SAME      SAME      SAME      SAME
only unknown labels  UNREAD*   UNREAD    SAME      UNREAD    UNREAD    UNREAD    UNREAD
labels as floats     SAME      SAME      SAME      SAME      SAME      SAME      SAME
labels as fractions  UNREAD    UNREAD    SAME      UNREAD    UNREAD*   UNREAD    UNREAD
"""
"""A fault in each line, a command in each column. Where nothing fails any more, the same command then ends as if
nothing had failed.

SAME: exit code 0; rows, trials and frozen files as where nothing fails.
FINE: exit code 0; everybody has a readable answer, but with other words or scores.
ONE: exit code 0; the one item or user that the provider refuses is counted, and the others go on.
UNREAD: exit code 1 or 2; says how many had no readable answer; nothing recommended or frozen, no figure of MAR.
FAILED: exit code 1 or 2; shows the words of the server, and no figure.
STOPPED: exit code 3 or 1; a limit of time stopped it, and it says so.
"""

USERS = 3
DATASET_USER = "S0001"
_STUDY = """
name = "small"
reference = "prior"
[[datasets]]
name = "shop"
source = "demo"
[[protocols]]
name = "warm"
users = 3
negatives = 6
draws = 1
[[rankers]]
ranker = "prior"
[[rankers]]
ranker = "{ranker}"
model = "{model}"
"""
_GRID = """
mope = ["a"]
mote = ["a"]
mar = ["a", "b"]
ranker = "{ranker}"
[backends.a]
model = "{model}"
[backends.b]
model = "{model}b"
"""


def evaluate(folder: Path, model: str, ranker: str) -> list[object]:
    return ["evaluate", folder / "test.jsonl", "--ranker", ranker, "--model", model, "--out", folder / "out"]


def recommend(folder: Path, model: str, ranker: str) -> list[object]:
    few = ["--user", DATASET_USER, "--candidates", 5, "--k", 2, "--json"]
    return ["recommend", "demo", *few, "--ranker", ranker, "--model", model, "--ledger", folder / "out" / LEDGER]


def distill(folder: Path, model: str, ranker: str) -> list[object]:
    return ["distill", folder / "test.jsonl", "--mote", model, "--json", "--ledger", folder / "out" / LEDGER]


def compile_(folder: Path, model: str, ranker: str) -> list[object]:
    small = ["--trials", 2, "--demo-sets", 0, "--wordings", 1, "--interactions", 1, "--held-out", 0.3]
    asks = ["--module", "mar", "--program", ranker, "--model", model]
    return ["compile", folder / "dev.jsonl", *asks, *small, "--out", folder / "out"]


def compare(folder: Path, model: str, ranker: str) -> list[object]:
    (folder / "grid.toml").write_text(_GRID.format(model=model, ranker=ranker))
    return ["compare", folder / "test.jsonl", "--grid", folder / "grid.toml", "--out", folder / "out"]


def study(folder: Path, model: str, ranker: str) -> list[object]:
    (folder / "study.toml").write_text(_STUDY.format(model=model, ranker=ranker))
    return ["study", "run", folder / "study.toml", "--out", folder / "out"]


def attack(folder: Path, model: str, ranker: str) -> list[object]:
    few = ["--attack", "german", "--users", 2]
    return ["attack", folder / "test.jsonl", "--ranker", ranker, "--model", model, *few, "--out", folder / "out"]


COMMANDS: dict[str, Callable[[Path, str, str], list[object]]] = {
    "evaluate": evaluate,
    "recommend": recommend,
    "distill": distill,
    "compile": compile_,
    "compare": compare,
    "study": study,
    "attack": attack,
}
"""From a folder for input files, a model and a program to the command."""

SECONDS = 60.0
"""Most that one command may take, on a busy machine."""

UNREADABLE = re.compile(r"\d of \d+ (users|items|attacked lists): no (answer|traits)|no answer of the models could be")
NOT_FIGURES = ("unparsable", "appended", "dropped")
"""What a row says about its answers."""

Facts = dict[str, Any]


@dataclass
class Scene:
    """A command in a folder of its own, and its server.

    Attributes:
        ended: How its last run ended.
    """

    command: str
    fault: Fault
    folder: Path
    server: FlakyOpenAI
    call: CommandLine
    ended: Ended = field(init=False)

    def run(self, *more: object) -> Ended:
        """Run the command, in bounded time, with short messages and without a traceback."""
        arguments = COMMANDS[self.command](self.folder, self.server.model("m"), self.fault.ranker)
        began = time.monotonic()
        self.ended = self.call(*arguments, *more)
        assert time.monotonic() - began < SECONDS
        assert "Traceback" not in self.said
        assert max(map(len, self.ended.err.splitlines()), default=0) <= MESSAGE_CHARACTERS
        return self.ended

    @property
    def said(self) -> str:
        """Its output, without line breaks."""
        return " ".join(f"{self.ended.err} {self.ended.out}".split())

    def facts(self) -> Facts:
        """Everything that must not depend on what happened on the way, and that costs leave alone."""
        out = self.folder / "out"
        found: Facts = {}
        for path in sorted(out.rglob(JOURNAL)):
            rows = judgements(rows_in(path.parent)).items()
            found[str(path)] = {user: {k: v for k, v in row.items() if k not in NOT_FIGURES} for user, row in rows}
        if self.frozen:
            trials = json.loads((out / SEARCH_FOLDER / TRIALS).read_text())
            found["trials"] = [(trial["configuration"], trial["score"]) for trial in trials]
            found["frozen"] = json.loads((out / MANIFEST).read_text())["files"]
        if self.command in ("recommend", "distill") and self.ended.out:
            found["said"] = {k: v for k, v in self.ended.json.items() if k not in ("usage", "calls")}
        return {key.removeprefix(str(out)): value for key, value in found.items()}

    @property
    def frozen(self) -> bool:
        """Whether there is an artifact."""
        return self.command == "compile" and (self.folder / "out" / MANIFEST).exists()

    def outcome(self, undisturbed: Facts) -> str:
        """What happened, in a word of the matrix."""
        unread = UNREADABLE.search(self.said)
        if "stopped: " in self.said:
            return "STOPPED"
        if self.ended.code:
            return "UNREAD" if unread else "FAILED"
        if unread or "refused by the provider" in self.said:
            return "ONE"
        return "SAME" if self.facts() == undisturbed else "FINE"

    def check(self, outcome: str) -> None:
        """What else is true of a command that ended so."""
        code, out = self.ended.code, self.ended.out
        if outcome == "FAILED":
            assert code in (1, 2)
            # The last line names the cause; of several rankers the notes before it do.
            last = self.ended.err.splitlines()[-1]
            assert re.search(self.fault.says, self.said if self.command in ("study", "attack") else last)
            assert not self.frozen
            # A study still has the runs that ask no model.
            assert not out if self.command != "study" else "1 of 2 runs complete" in out
        if outcome == "STOPPED":
            assert code in (1, 3)
            assert not self.frozen
        if outcome == "UNREAD":
            assert not self.frozen
            assert code == (2 if self.command in ("recommend", "compile") else 1)
            assert not re.search(r"(?i)mar alone|cheapest mix|met by", out)
            if self.command in ("recommend", "compile"):
                assert not out
            elif self.command != "distill":
                assert UNREADABLE.search(" ".join(out.split())[:200]), "it is not said first"
        if outcome == "ONE":
            assert re.search(r"\b1 of \d+|refused by the provider", self.said)


def cells() -> list[Any]:
    """The cells that this run tries."""
    head, *lines = MATRIX.strip().splitlines()
    commands = head.split()[1:]
    found = []
    for line in lines:
        name, *outcomes = re.split(r"  +", line)
        for command, outcome in zip(commands, outcomes, strict=True):
            if LONG or outcome.endswith("*"):
                found.append(pytest.param(name, command, outcome.rstrip("*"), id=f"{name}-{command}"))
    return found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cases that commands read."""
    folder = tmp_path_factory.mktemp("inputs")
    cases_file(folder / "test.jsonl", USERS, 6, part="test")
    cases_file(folder / "dev.jsonl", USERS + 1, 6)
    return folder


@pytest.fixture(scope="module")
def known() -> dict[tuple[str, str], Facts]:
    """What the commands give with the programs where nothing fails, as far as it was needed so far."""
    return {}


@pytest.mark.parametrize(("name", "command", "expected"), cells())
def test_a_fault(
    name: str,
    command: str,
    expected: str,
    inputs: Path,
    known: dict[tuple[str, str], Facts],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    cli: CommandLine,
    hurried: None,
) -> None:
    fault = FAULTS[name]
    monkeypatch.setenv(variable("encoder"), "hashing")
    monkeypatch.setattr(circuit_breaker, "FAILURES", 2)

    def scene(folder: str, fault: Fault, server: FlakyOpenAI) -> Scene:
        """The command with this fault, and a cache of its own."""
        monkeypatch.setenv(variable("cache"), str(tmp_path / folder / "cache"))
        shutil.copytree(inputs, tmp_path / folder)
        return Scene(command, fault, tmp_path / folder, server, cli)

    if (command, fault.ranker) not in known:
        with FlakyOpenAI() as server:
            server.respond = sensitive
            whole = scene("whole", replace(FAULTS["healthy"], ranker=fault.ranker), server)
            assert whole.run().code == 0, whole.said
            known[command, fault.ranker] = whole.facts()
    undisturbed = known[command, fault.ranker]
    with FlakyOpenAI() as server:
        tried = scene("tried", fault, server)
        fault.begins(server)
        server.respond = fault.respond(server)
        tried.run(*fault.options)
        assert tried.outcome(undisturbed) == expected, tried.said
        tried.check(expected)
        rows = tried.facts()

        server.rise()
        server.respond = sensitive
        asked = len(server.bodies)
        again = tried.run("--retry-unparsable") if expected == "UNREAD" else tried.run()
        assert again.code == 0, tried.said
        # A model that no longer thinks is asked with the usual limit of tokens again, which is another question.
        if expected in ("SAME", "FINE") and name != "thinking cut off":
            assert len(server.bodies) == asked, "what was answered is not paid for again"
        if expected in ("SAME", "FAILED", "STOPPED", "UNREAD"):
            assert tried.facts() == undisturbed
        elif command not in ("recommend", "distill"):
            assert tried.facts() == rows, "a finished run is not touched"
