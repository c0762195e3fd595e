"""Keys in environment variables go to their server and nowhere else: not to the terminal, and to no file.

Every command is run with canaries for keys, on a server that answers and on servers that refuse, fail, answer with a
web page, redirect, or repeat the key in their error message.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from programs.lm import circuit_breaker
from programs.lm.endpoints import key_variable
from tests.soak import LONG
from tests.soak.commands import small_study
from tests.support.cases import cases_file
from tests.support.command_line import CommandLine, command_line
from tests.support.compile_setup import sensitive
from tests.support.fake_server import Body, FakeOpenAI, Reply

OPENAI, ANTHROPIC = "sk-canary-0penai-7f3a91", "sk-ant-canary-41c2d8"
GRIDS, SERVERS_OWN = "grids-canary-93be05", "servers-canary-d20e77"
CANARIES = (OPENAI, ANTHROPIC, GRIDS, SERVERS_OWN)
HOSTED = "openai/gpt-4o"
PAGE = b"<!doctype html><html><body><h1>Sign in</h1></body></html>"

Answers = Callable[[FakeOpenAI, str], Callable[[Body], Reply]]

SERVERS: dict[str, Answers] = {
    "answers": lambda server, other: sensitive,
    "401": lambda server, other: lambda body: Reply("Incorrect API key provided.", status=401),
    "repeats": lambda server, other: lambda body: Reply(f"Incorrect API key: {server.keys[-1]}.", status=401),
    "500": lambda server, other: lambda body: Reply("on fire", status=500, headers={"Retry-After": "0"}),
    "page": lambda server, other: lambda body: Reply(raw=PAGE + server.keys[-1].encode()),
    "redirect": lambda server, other: lambda body: Reply(status=307, headers={"Location": f"{other}/chat/completions"}),
}
"""What a server does, by a word for it; given itself and the address of another server."""


@dataclass
class Shop:
    """A folder with all files that the commands need, and what they said.

    Attributes:
        said: Output by command.
    """

    folder: Path
    server: FakeOpenAI
    call: CommandLine
    said: dict[str, str] = field(default_factory=dict)

    def run(self, *arguments: object) -> int:
        """Run a command and keep what it said."""
        ended = self.call(*arguments)
        self.said[" ".join(map(str, arguments))] = ended.out + ended.err
        return ended.code

    def leaks(self) -> list[str]:
        """Commands and files that show a canary."""
        texts = {name: text.encode() for name, text in self.said.items()}
        texts |= {str(path): content(path) for path in self.folder.rglob("*") if path.is_file()}
        return [f"{canary} in {name}" for name, text in texts.items() for canary in CANARIES if canary.encode() in text]


def content(path: Path) -> bytes:
    """What is in a file; of a database the values, too, which may lie in pieces in the file."""
    data = path.read_bytes()
    if data.startswith(b"SQLite format 3"):
        with sqlite3.connect(path) as database:
            data += "\n".join(database.iterdump()).encode(errors="replace")
    return data


@pytest.fixture(params=SERVERS if LONG else ("answers", "repeats", "redirect"))
def shop(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    hurried: None,
) -> Iterator[Shop]:
    monkeypatch.setattr(circuit_breaker, "FAILURES", 2)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLLM3REC_ENCODER", "hashing")
    for variable, canary in (("OPENAI_API_KEY", OPENAI), ("ANTHROPIC_API_KEY", ANTHROPIC), ("GRIDS_KEY", GRIDS)):
        monkeypatch.setenv(variable, canary)
    with ExitStack() as stack:
        other = stack.enter_context(FakeOpenAI())
        server = stack.enter_context(FakeOpenAI())
        # It cannot answer in the form of every provider, and says so in the output that is searched for keys.
        server._server.handle_error = lambda *_: None  # type: ignore[method-assign]
        server.respond = SERVERS[request.param](server, other.url)
        monkeypatch.setenv(key_variable(server.model()), SERVERS_OWN)
        for variable in ("OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"):
            monkeypatch.setenv(variable, server.url)
        yield Shop(tmp_path, server, command_line(monkeypatch, capfd))
        assert not {key for key in other.keys if "canary" in key}, "a key followed a redirect"


def test_keys_are_in_nothing_but_requests(shop: Shop, request: pytest.FixtureRequest) -> None:
    folder, run = shop.folder, shop.run
    answers = request.node.callspec.params["shop"] == "answers"
    cases_file(folder / "dev.jsonl", 4)
    (folder / "grid.toml").write_text(
        f'mope = ["own"]\nmote = ["own"]\nmar = ["hosted"]\n[backends.own]\nmodel = "{shop.server.model()}"\n'
        f'api_key_env = "GRIDS_KEY"\n[backends.hosted]\nmodel = "{HOSTED}"\n'
    )
    (folder / "study.toml").write_text(small_study(HOSTED, users=2))
    small = ["--trials", 2, "--demo-sets", 1, "--wordings", 1, "--max-demos", 1, "--interactions", 1]
    paying: list[list[object]] = [
        ["evaluate", "test.jsonl", "--ranker", "listwise", "--model", HOSTED, "--explain", 1, "--out", "run"],
        ["evaluate", "test.jsonl", "--ranker", "pointwise", "--model", shop.server.model("other"), "--out", "own"],
        ["compare", "test.jsonl", "--grid", "grid.toml", "--out", "compared"],
        ["recommend", "demo", "--user", "S0001", "--candidates", 4, "--k", 1, "--model", HOSTED, "--ledger", "l.jsonl"],
        ["recommend", "demo", "--user", "S0001", "--candidates", 4, "--k", 1, "--model", "anthropic/claude-sonnet-4-5"],
        ["study", "run", "study.toml", "--out", "studied"],
        ["compile", "dev.jsonl", "--model", HOSTED, "--out", "artifact", *small],
        ["distill", "test.jsonl", "--mote", HOSTED],
        ["attack", "test.jsonl", "--ranker", "llm-only", "--attack", "order-in-title", "--model", HOSTED, "--out", "a"],
    ]
    if LONG or not answers:
        demo = ["--users", 1, "--dev-users", 4, "--trials", 1]
        paying.append(["demo", "--out", "demo", "--model", HOSTED, *demo])
    assert run("cases", "demo", "--users", 2, "--negatives", 7, "--out", "test.jsonl") == 0
    codes = {" ".join(map(str, command)): run(*command) for command in paying}
    free: list[list[object]] = [
        ["doctor"],
        ["doctor", "--json"],
        ["prices", "show"],
        ["prices", "check", HOSTED],
        ["models", "list"],
        ["data", "describe", "demo"],
        ["audit", "run"],
        ["study", "status", "study.toml", "--out", "studied"],
        ["study", "report", "study.toml", "--out", "studied"],
        ["artifact", "verify", "artifact"],
        ["artifact", "show", "artifact"],
        ["artifact", "diff", "artifact", "artifact"],
        ["evaluate", "test.jsonl", "--ranker", "artifact", "--out", "frozen"],
    ]
    for command in free:
        run(*command)
    assert shop.leaks() == []
    assert not [name for name, text in shop.said.items() if "Traceback" in text]
    bearers = {f"Bearer {canary}" for canary in (OPENAI, GRIDS, SERVERS_OWN)}
    assert bearers | {ANTHROPIC} <= set(shop.server.keys), "a key was not used at all"
    if answers:
        # The server does not speak Anthropic's language.
        bad = {name: shop.said[name] for name, code in codes.items() if code and "anthropic" not in name}
        assert not bad, bad
    else:
        assert 0 not in codes.values(), codes
    print(f"\n{len(shop.said)} commands, {len(shop.server.bodies)} requests, 0 canaries outside of them")
