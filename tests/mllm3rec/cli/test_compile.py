"""`mllm3rec compile`, `artifact` and `evaluate --ranker ARTIFACT` against a fake server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from typer.testing import Result

from optimize.artifact import MANIFEST, SEARCH_FOLDER
from programs.runtime.errors import InputError
from tests.support.cases import cases_file
from tests.support.command_line import commands_in, run
from tests.support.compile_setup import sensitive
from tests.support.fake_server import FakeOpenAI

FEW = ["--trials", "2", "--max-demos", "1", "--interactions", "2"]
SMALL = [*FEW, "--demo-sets", "1", "--wordings", "1"]


@dataclass(frozen=True)
class Compiled:
    """Two artifacts, of a search and of labelled demos, and the server that answers them."""

    first: Path
    second: Path
    dev: Path
    server: FakeOpenAI
    said: str

    def command(self, directory: Path, *more: str) -> Result:
        """The command that makes an artifact."""
        small = FEW if "--optimizer" in more else SMALL
        return run("compile", self.dev, "--out", directory, "--model", self.server.model(), *small, *more)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Compiled]:
    """The artifacts, made by the command line."""
    folder = tmp_path_factory.mktemp("compiled")
    cases_file(folder / "dev.jsonl", 6)
    with FakeOpenAI(sensitive) as server:
        asked = Compiled(folder / "first", folder / "second", folder / "dev.jsonl", server, "")
        with commands_in(folder):
            made = asked.command(asked.first)
            labelled = asked.command(asked.second, "--optimizer", "labeled", "--json")
        assert made.exit_code == 0, made.output
        assert labelled.exit_code == 0, labelled.output
        yield replace(asked, said=made.output)


@pytest.fixture
def unseen(tmp_path: Path) -> Path:
    """Cases of three users whom no compile has seen."""
    cases_file(tmp_path / "test.jsonl", 3, part="test")
    return tmp_path / "test.jsonl"


def test_compile_tells_the_verdict_and_goes_on_where_it_was(compiled: Compiled) -> None:
    assert "on held-out users the compiled program is" in compiled.said
    assert json.loads(compiled.command(compiled.first, "--json").stdout)["trials"] == 2


def test_an_artifact_is_evaluated_and_compared_like_a_ranker(compiled: Compiled, unseen: Path, tmp_path: Path) -> None:
    evaluate = ("evaluate", unseen, "--ranker", compiled.first, "--out", tmp_path / "run", "--json")
    evaluated = run(*evaluate)
    assert evaluated.exit_code == 0, evaluated.output
    figures = json.loads(evaluated.stdout)
    assert figures["users"] == 3
    assert set(figures["components"]) == {"prior", "mar", "fused"}
    assert figures["ranker"].startswith("compiled listwise (")
    old, model = tmp_path / "old", compiled.server.model()
    before = run("evaluate", unseen, "--ranker", "listwise", "--out", old, "--model", model)
    assert before.exit_code == 0, before.output
    both = run(*evaluate, "--against", old)
    assert json.loads(both.stdout)["against"]["HR@5/10"]["n"] == 3
    other = run("evaluate", compiled.dev, "--ranker", "prior", "--out", tmp_path / "p", "--against", old)
    assert "other cases" in str(other.exception)


def test_an_artifact_is_not_evaluated_on_users_of_its_search(compiled: Compiled, tmp_path: Path) -> None:
    known = run("evaluate", compiled.dev, "--ranker", compiled.first, "--out", tmp_path / "cheat", "--json")
    assert isinstance(known.exception, InputError)
    assert "--part test" in str(known.exception)


def test_an_artifact_recommends(compiled: Compiled) -> None:
    advised = run("recommend", "demo", "--user", "S0001", "--k", "2", "--ranker", compiled.first, "--json")
    assert advised.exit_code == 0, advised.output
    assert len(json.loads(advised.stdout)["recommendations"]) == 2


def test_artifact_show_prints_what_it_asks(compiled: Compiled) -> None:
    shown = run("artifact", "show", compiled.first)
    assert shown.exit_code == 0
    assert "optimizer: study" in shown.output
    assert "shopper.infer.predict" in shown.output
    assert json.loads(run("artifact", "show", compiled.first, "--json").stdout)["prompts"]


def test_artifact_diff_fails_where_two_differ(compiled: Compiled) -> None:
    assert run("artifact", "diff", compiled.first, compiled.first).exit_code == 0
    differing = run("artifact", "diff", compiled.first, compiled.second)
    assert differing.exit_code == 1
    assert "+optimizer: labeled" in differing.output


def test_artifact_verify_refuses_a_damaged_one(compiled: Compiled, tmp_path: Path) -> None:
    assert run("artifact", "verify", compiled.first).exit_code == 0
    damaged = Path(shutil.copytree(compiled.first, tmp_path / "damaged"))
    (damaged / MANIFEST).write_bytes((damaged / MANIFEST).read_bytes()[:200])
    refused = run("artifact", "verify", damaged)
    assert isinstance(refused.exception, InputError)


def test_nothing_is_searched_in_a_linked_folder(tmp_path: Path, server: FakeOpenAI) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "art").mkdir()
    (tmp_path / "art" / "search").symlink_to(tmp_path / "mine")
    cases_file(tmp_path / "dev.jsonl", 6)
    model = ("--model", server.model(), "--out", tmp_path / "art", *SMALL)
    ended = run("compile", tmp_path / "dev.jsonl", *model)
    assert "search: is a symbolic link" in str(ended.exception)
    assert not list((tmp_path / "mine").iterdir())
    assert server.bodies == []


def test_a_dry_run_forecasts_and_makes_no_artifact(tmp_path: Path) -> None:
    dev = tmp_path / "dev.jsonl"
    cases_file(dev, 6)
    with FakeOpenAI(sensitive) as server:
        found = run("compile", dev, "--out", tmp_path / "art", "--model", server.model(), *SMALL, "--dry-run", "--json")
        served = len(server.bodies)
    assert found.exit_code == 0, found.output
    forecast = json.loads(found.stdout)
    assert [phase["name"] for phase in forecast["phases"]] == ["pools", "search", "finals", "held-out"]
    assert forecast["in_all"]["calls"] == sum(phase["calls"] for phase in forecast["phases"])
    assert forecast["in_all"]["usd"] is None, "an unknown price is not zero"
    assert 0 < served < 50
    assert not (tmp_path / "art" / MANIFEST).exists()
    assert not (tmp_path / "art" / SEARCH_FOLDER / "pools.json").exists()


def test_a_forecast_reads_as_a_table(tmp_path: Path, server: FakeOpenAI) -> None:
    cases_file(tmp_path / "dev.jsonl", 6)
    options = ("--out", tmp_path / "art", "--model", server.model(), *SMALL, "--dry-run")
    found = run("compile", tmp_path / "dev.jsonl", *options)
    assert found.exit_code == 0, found.output
    rows = {line.split()[1] for line in found.stdout.splitlines() if line.startswith("│")}
    assert {"pools", "search", "held-out"} < rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--optimizer", "magic"], "study, mipro, gepa"),
        (["--family", "magic"], "listwise"),
        (["--module", "magic"], "mope, mote, mar"),
        (["--similarity", "magic"], "keywords"),
        (["--backend", "magic"], "ROLE=VALUE"),
        (["--temperature", "mope=hot"], "--temperature"),
        (["--optimizer", "gepa", "--wordings", "5"], "the optimizer gepa does not read wordings, as study would"),
        (["--optimizer", "gepa", "--demo-sets", "5"], "does not read demo_sets, as study and mipro would"),
        (["--gepa", "merge=false"], "the optimizer study does not read gepa, as gepa would"),
        (["--beside-prior", "50"], "the optimizer study does not read beside_prior, as finetune would"),
        (["--optimizer", "finetune", "--module", "mar"], "does not read modules, as study and mipro"),
        (["--optimizer", "mipro", "--program", "listwise", "--program", "needs"], "not read several values of program"),
        (["--optimizer", "mipro", "--weight", "0.2", "--weight", "0.4"], "does not read several values of weights"),
        (["--optimizer", "labeled", "--pareto"], "the optimizer labeled does not read pareto"),
        (["--optimizer", "random-search", "--trials", "3"], "scores at least 4 programs"),
    ],
)
def test_bad_options_are_refused_with_what_there_is(tmp_path: Path, options: list[str], message: str) -> None:
    dev = tmp_path / "dev.jsonl"
    cases_file(dev, 6)
    found = run("compile", dev, "--out", tmp_path / "art", *options)
    assert isinstance(found.exception, InputError)
    assert message in str(found.exception)
    assert not (tmp_path / "art").exists()


def test_prototypes_are_tuned_and_evaluated_without_a_model(
    unseen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases_file(tmp_path / "dev.jsonl", 20)
    # No weights of any model are there.
    monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path / "empty"))
    art = tmp_path / "art"
    common = ("compile", tmp_path / "dev.jsonl", "--optimizer", "prototypes", "--trials", "12", "--out", art)
    refused = run(*common)
    assert isinstance(refused.exception, InputError)
    assert "--program encoder" in str(refused.exception)
    made = run(*common, "--program", "encoder", "--coherence", "0")
    assert made.exit_code == 0, made.output
    assert "12 trials, 12 of them different, in" in made.output
    said = " ".join(made.output.split())
    assert "on the 3 users by whom the winner was chosen the score was" in said
    assert "note: the winner was chosen by 3 users and checked on 6 users" in said
    assert "on held-out users the compiled program is" in made.output
    shown = run("artifact", "show", art)
    assert "sustainability" in shown.output
    evaluated = run("evaluate", unseen, "--ranker", art, "--out", tmp_path / "run")
    assert evaluated.exit_code == 0, evaluated.output
    manifest = json.loads((tmp_path / "run" / MANIFEST).read_text())
    assert manifest["configuration"]["artifact"] == json.loads((art / MANIFEST).read_text())["sha256"]
    assert "models" not in manifest["configuration"]
