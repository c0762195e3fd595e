"""Commands whose roles are models of three providers, each on a server that refuses what its family refuses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from programs.lm.ledger import read_calls
from tests.support.cases import cases_file
from tests.support.command_line import commands_in, run
from tests.support.fake_server import FakeOpenAI
from tests.support.provider_families import FAMILIES

MIX = {"mope": "anthropic/claude-haiku-5-5", "mote": "gemini/gemini-3.8-flash", "mar": "openai/gpt-6-luna"}
FLAGS = [word for role, model in MIX.items() for word in (f"--{role}", model)]
HOSTED = ["--preset", "hosted", *FLAGS, "--budget-usd", "5"]

Servers = dict[str, FakeOpenAI]


@pytest.fixture
def servers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    """A server for each provider of the mix, by role, and a working folder of this test's own."""
    with ExitStack() as stack:
        stack.enter_context(commands_in(tmp_path))
        found = {}
        for role, model in MIX.items():
            found[role] = stack.enter_context(FakeOpenAI(FAMILIES[model]))
            provider = model.partition("/")[0].upper()
            monkeypatch.setenv(f"{provider}_BASE_URL", found[role].url)
            monkeypatch.setenv(f"{provider}_API_KEY", f"sk-{role}-0123456789")
        yield found


def check_answers(servers: Servers, *ledgers: Path) -> None:
    """Every provider was asked, took every request at once, and its calls have a price."""
    calls = [call for ledger in ledgers for call in read_calls(ledger)]
    assert {call.model for call in calls} == set(MIX.values())
    for role, model in MIX.items():
        sent = [call for call in calls if call.model == model and not call.hit]
        assert len(sent) == len(servers[role].bodies) > 0
        assert not any(call.failed for call in sent)
        assert all(call.usd for call in sent)


def test_an_evaluation_mixes_providers(servers: Servers, tmp_path: Path) -> None:
    cases_file(tmp_path / "cases.jsonl", 3, part="test")
    made = run(
        "evaluate", tmp_path / "cases.jsonl", "--ranker", "listwise", *HOSTED, "--out", tmp_path / "run", "--json"
    )
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["unparsable_users"] == 0
    check_answers(servers, tmp_path / "run" / "ledger.jsonl")


def test_a_compile_mixes_providers(servers: Servers, tmp_path: Path) -> None:
    cases_file(tmp_path / "dev.jsonl", 6)
    small = ["--trials", "2", "--demo-sets", "1", "--wordings", "1", "--max-demos", "1", "--interactions", "2"]
    made = run("compile", tmp_path / "dev.jsonl", "--out", tmp_path / "artifact", *HOSTED, *small, "--json")
    assert made.exit_code == 0, made.output
    assert json.loads(made.stdout)["trials"] == 2
    check_answers(servers, *(tmp_path / "artifact").rglob("ledger.jsonl"))


def test_a_comparison_mixes_providers(servers: Servers, tmp_path: Path) -> None:
    cases_file(tmp_path / "cases.jsonl", 3, part="test")
    backends = "".join(f'[backends.{role}]\nmodel = "{model}"\n' for role, model in MIX.items())
    roles = 'mope = ["mope", "mar"]\nmote = ["mote"]\nmar = ["mar", "mote"]\n'
    grid = tmp_path / "grid.toml"
    grid.write_text(roles + backends)
    made = run(
        "compare", tmp_path / "cases.jsonl", "--grid", grid, "--out", tmp_path / "out", "--budget-usd", 5, "--json"
    )
    assert made.exit_code == 0, made.output
    rows = json.loads(made.stdout)["rows"]
    assert len(rows) == 4
    assert all(row["cost"]["per_user"] > 0 for row in rows)
    check_answers(servers, *(tmp_path / "out").rglob("ledger.jsonl"))
