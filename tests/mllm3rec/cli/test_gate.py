"""`mllm3rec gate`, and `evaluate --gate --ask`: on the demo store, with its planted truth in the place of a model."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluate.runs.journal import read_journal
from programs.gate import read_gate
from tests.support.command_line import CommandLine
from tests.support.fake_server import FakeOpenAI


@pytest.fixture
def fitted(tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with dev and test cases, a dev run, and a gate fitted on it."""
    monkeypatch.chdir(tmp_path)
    for part in ("dev", "test"):
        assert cli("cases", "demo", "--out", f"{part}.jsonl", "--part", part, "--users", 60).code == 0
    assert cli("evaluate", "dev.jsonl", "--ranker", "planted-truth", "--out", "dev").code == 0
    found = cli("gate", "dev.jsonl", "dev", "--out", "gate.json", "--json")
    assert found.code == 0, found.err
    assert found.json["gain"]["low"] > 0, "the planted truth is better than the prior"
    return tmp_path


def test_a_gate_ranks_and_asks_a_share(fitted: Path, cli: CommandLine) -> None:
    gated = ("evaluate", "test.jsonl", "--ranker", "planted-truth", "--gate", "gate.json")
    by_share = {}
    for share in (0, 0.5, 1):
        found = cli(*gated, "--ask", share, "--out", f"ask{share}", "--json")
        assert found.code == 0, found.err
        _, rows = read_journal(fitted / f"ask{share}")
        by_share[share] = (sum(row.asked for row in rows.values()), found.json["metrics"]["NDCG@5/30"]["mean"])
        assert all(("mar" in row.scores) == row.asked for row in rows.values())
    assert by_share[0][0] == 0 < by_share[0.5][0] < by_share[1][0] == len(rows)
    assert by_share[0][1] < by_share[0.5][1] < by_share[1][1]
    manifest, _ = read_journal(fitted / "ask0.5")
    kept = read_gate(fitted / "gate.json").asking(0.5)
    assert manifest.configuration["gate"] == kept.model_dump(mode="json")
    other = cli(*gated, "--ask", 0.25, "--out", "ask0.5")
    assert other.code == 2
    assert "configuration.gate.ask_below" in " ".join(other.err.split())
    said = cli(*gated, "--ask", 0, "--out", "ask0").out
    assert "asked about 0 of 60 users" in said


def test_users_who_are_not_asked_about_cost_no_call(fitted: Path, cli: CommandLine) -> None:
    with FakeOpenAI() as server:
        command = ("evaluate", "test.jsonl", "--ranker", "llm-only", "--model", server.model(), "--gate", "gate.json")
        assert cli(*command, "--ask", 0, "--out", "nobody").code == 0
        assert not server.bodies
        assert cli(*command, "--ask", 0.25, "--out", "some").code == 0
    rows = read_journal(fitted / "some")[1].values()
    assert 0 < sum(row.usage.calls > 0 for row in rows) == sum(row.asked for row in rows) < len(rows)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        (("evaluate", "test.jsonl", "--ranker", "prior", "--gate", "gate.json", "--out", "x"), "choose a program"),
        (("evaluate", "test.jsonl", "--ranker", "planted-truth", "--ask", "0.5", "--out", "x"), "give a gate"),
        (
            ("evaluate", "test.jsonl", "--ranker", "listwise", "--gate", "gate.json", "--ask", "0.5", "--explain", "1",
             "--out", "x"),
            "without reasons",
        ),
        (("gate", "test.jsonl", "dev", "--out", "y.json"), "fitted on dev users only"),
        (("evaluate", "test.jsonl", "--ranker", "encoder", "--gate", "none.json", "--out", "x"), "no such file"),
    ],
)  # fmt: skip
def test_what_has_no_gate_is_refused(fitted: Path, cli: CommandLine, command: tuple[str, ...], problem: str) -> None:
    found = cli(*command)
    assert found.code == 2
    assert problem in " ".join(found.err.split())


def test_a_run_without_scores_of_mar_is_refused(fitted: Path, cli: CommandLine) -> None:
    assert cli("evaluate", "dev.jsonl", "--ranker", "prior", "--out", "prior").code == 0
    found = cli("gate", "dev.jsonl", "prior", "--out", "y.json")
    assert found.code == 2
    assert "no scores of MAR" in " ".join(found.err.split())


SHARES = """
name = "shares"

[[datasets]]
name = "shop"
source = "demo"

[[protocols]]
name = "warm"
users = 60

[[protocols]]
name = "whole"
users = 5
catalogue = true

[[rankers]]
ranker = "prior"

[[rankers]]
ranker = "planted-truth"
label = "asked 0"
protocols = ["warm"]
gate = "gate.json"
ask = 0

[[rankers]]
ranker = "planted-truth"
label = "asked half"
protocols = ["warm"]
gate = "gate.json"
ask = 0.5
"""


def test_quality_by_the_share_asked_is_one_study(fitted: Path, cli: CommandLine) -> None:
    Path("shares.toml").write_text(SHARES)
    found = cli("study", "run", "shares.toml", "--out", "shares", "--json")
    assert found.code == 0, found.err
    asked = {}
    for name in ("asked_0", "asked_half"):
        manifest, rows = read_journal(fitted / "shares" / "shop" / "warm" / "draw0" / name)
        asked[name] = sum(row.asked for row in rows.values())
        assert "gate" in manifest.configuration
    assert asked["asked_0"] == 0 < asked["asked_half"] < 60
    assert "gate" not in read_journal(fitted / "shares" / "shop" / "warm" / "draw0" / "prior")[0].configuration
    evaluated = cli("evaluate", "shares/shop/warm/draw0/cases.jsonl", "--ranker", "planted-truth", "--gate",
                    "gate.json", "--ask", 0.5, "--out", "half", "--json")  # fmt: skip
    assert evaluated.code == 0, evaluated.err
    alone = {user: row.order for user, row in read_journal(fitted / "half")[1].items()}
    assert alone == {user: row.order for user, row in rows.items()}


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ('gate = "gate.json"\nask = 0.5', "ask = 0.5", "asked_half: gate, ask: to ask about a share"),
        ('gate = "gate.json"\nask = 0.5', 'gate = "none.json"', "asked_half: gate, ask: none.json: no such file"),
        ("ask = 0.5", "ask = 50", "rankers.2.ask"),
        ('protocols = ["warm"]\ngate = "gate.json"\nask = 0.5', 'gate = "gate.json"', "without a gate"),
        ('"prior"', '"prior"\ngate = "gate.json"', "draw0/prior: gate, ask: prior: a gate weighs"),
        ('"prior"', '"learned+mar"\nlabel = "prior"\ngate = "gate.json"\nprotocols = ["warm"]', "about all users"),
        ("ask = 0.5", "ask = 0.5\nexplain = 1", "does not read explain"),
    ],
)
def test_a_gate_of_a_study_is_checked_before_anything_runs(
    fitted: Path, cli: CommandLine, old: str, new: str, problem: str
) -> None:
    Path("shares.toml").write_text(SHARES.replace(old, new))
    found = cli("study", "run", "shares.toml", "--out", "shares")
    assert found.code == 2
    assert problem in " ".join(found.err.split())
    assert not list(fitted.glob("shares/**/manifest.json"))
