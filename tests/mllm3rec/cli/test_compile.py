"""`mllm3rec compile`, `artifact` and `evaluate --ranker ARTIFACT` as a user types them, against a fake server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optimize.artifact import MANIFEST, SEARCH_FOLDER
from programs.runtime.errors import InputError
from tests.support.cases import cases_file
from tests.support.command_line import run
from tests.support.compile_setup import sensitive
from tests.support.fake_server import FakeOpenAI

SMALL = ["--trials", "2", "--demo-sets", "1", "--wordings", "1", "--max-demos", "1", "--interactions", "2"]


def test_compile_show_verify_diff_and_evaluate(tmp_path: Path) -> None:
    dev, test = tmp_path / "dev.jsonl", tmp_path / "test.jsonl"
    cases_file(dev, 6)
    cases_file(test, 3, part="test")
    first, second = tmp_path / "first", tmp_path / "second"
    with FakeOpenAI(sensitive) as server:
        made = run("compile", dev, "--out", first, "--model", server.model(), *SMALL)
        assert made.exit_code == 0, made.output
        assert "on users it had not seen" in made.output
        again = run("compile", dev, "--out", first, "--model", server.model(), *SMALL, "--json")
        assert json.loads(again.stdout)["trials"] == 2
        labelled = run(
            "compile", dev, "--out", second, "--model", server.model(), *SMALL, "--optimizer", "labeled", "--json"
        )
        assert labelled.exit_code == 0, labelled.output
        evaluated = run("evaluate", test, "--ranker", first, "--out", tmp_path / "run", "--json")
        assert evaluated.exit_code == 0, evaluated.output
        figures = json.loads(evaluated.stdout)
        assert figures["users"] == 3
        assert set(figures["components"]) == {"prior", "mar", "fused"}
        assert figures["ranker"].startswith("compiled listwise (")
        known = run("evaluate", dev, "--ranker", first, "--out", tmp_path / "cheat", "--json")
        assert isinstance(known.exception, InputError)
        assert "--part test" in str(known.exception)
        advised = run("recommend", "demo", "--user", "S0001", "--k", "2", "--ranker", first, "--json")
        assert advised.exit_code == 0, advised.output
        assert len(json.loads(advised.stdout)["recommendations"]) == 2
        before = run("evaluate", test, "--ranker", "listwise", "--out", tmp_path / "old", "--model", server.model())
        assert before.exit_code == 0, before.output
        both = run(
            "evaluate", test, "--ranker", first, "--out", tmp_path / "run", "--against", tmp_path / "old", "--json"
        )
        assert json.loads(both.stdout)["against"]["HR@5/10"]["n"] == 3
        other = run("evaluate", dev, "--ranker", "prior", "--out", tmp_path / "p", "--against", tmp_path / "old")
        assert "other cases" in str(other.exception)
    assert run("artifact", "verify", first).exit_code == 0
    shown = run("artifact", "show", first)
    assert shown.exit_code == 0
    assert "optimizer: study" in shown.output
    assert "shopper.infer.predict" in shown.output
    assert json.loads(run("artifact", "show", first, "--json").stdout)["prompts"]
    assert run("artifact", "diff", first, first).exit_code == 0
    differing = run("artifact", "diff", first, second)
    assert differing.exit_code == 1
    assert "+optimizer: labeled" in differing.output
    (first / MANIFEST).write_bytes((first / MANIFEST).read_bytes()[:200])
    refused = run("artifact", "verify", first)
    assert isinstance(refused.exception, InputError)


def test_a_dry_run_forecasts_and_makes_no_artifact(tmp_path: Path) -> None:
    dev = tmp_path / "dev.jsonl"
    cases_file(dev, 6)
    with FakeOpenAI(sensitive) as server:
        found = run("compile", dev, "--out", tmp_path / "art", "--model", server.model(), *SMALL, "--dry-run", "--json")
        served = len(server.bodies)
    assert found.exit_code == 0, found.output
    forecast = json.loads(found.stdout)
    assert [phase["name"] for phase in forecast["phases"]] == ["pools", "search", "held-out"]
    assert forecast["in_all"]["calls"] == sum(phase["calls"] for phase in forecast["phases"])
    assert forecast["in_all"]["usd"] is None, "an unknown price is not zero"
    assert 0 < served < 50
    assert not (tmp_path / "art" / MANIFEST).exists()
    assert not (tmp_path / "art" / SEARCH_FOLDER / "pools.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--optimizer", "magic"], "study, mipro, gepa"),
        (["--family", "magic"], "listwise"),
        (["--module", "magic"], "mope, mote, mar"),
        (["--similarity", "magic"], "keywords"),
        (["--backend", "magic"], "ROLE=VALUE"),
        (["--temperature", "mope=hot"], "--temperature"),
    ],
)
def test_bad_options_are_refused_with_what_there_is(tmp_path: Path, options: list[str], message: str) -> None:
    dev = tmp_path / "dev.jsonl"
    cases_file(dev, 6)
    found = run("compile", dev, "--out", tmp_path / "art", *options)
    assert isinstance(found.exception, InputError)
    assert message in str(found.exception)
    assert not (tmp_path / "art").exists()
