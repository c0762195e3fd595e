"""What the code of commit 910afb0 wrote still resumes, loads and verifies; asked through the command line alone.

The files lie in `golden/commit_910afb0`, with the commands that made them and what these printed in `expected.json`.
Every command here is one of those, given again beside a copy of the files.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine, Ended
from tests.support.fake_server import FakeOpenAI
from tests.support.paths import OLD_FILES

EXPECTED: dict[str, Any] = json.loads((OLD_FILES / "expected.json").read_text("utf-8"))
COMMANDS: dict[str, list[str]] = EXPECTED["commands"]
PRINTED: dict[str, Any] = EXPECTED["outputs"]
ADDRESS: str = EXPECTED["address"]
"""Of the server the old code asked; nobody listens there any more."""

NOBODY = ("--max-calls", "0")
"""Refuses every question that has no stored answer."""

FORMULA = ("--prior", "2")
"""The formula of the prior that the old code had."""

PROGRAMS = ("pointwise", "embedding", "without-mope", "without-mote", "without-reflection", "llm-only")
MODELLED = ("listwise", "own-settings", *PROGRAMS, "compiled")
UNFIT = ("shop/warm/draw0/knn", "shop/warm/draw0/listwise", "shop/warm/draw1/prior", "shop/whole_catalogue/draw0/prior")
FITTED = ("shop/warm/draw0/bpr-seed0", "shop/warm/draw0/learned+mar")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the old files, as the working directory."""
    folder = tmp_path / "old"
    shutil.copytree(OLD_FILES, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("MLLM3REC_ENCODER", "hashing")
    return folder


@pytest.fixture
def cli(here: Path, cli: CommandLine) -> CommandLine:
    """The command line beside the old files, printing JSON."""
    return lambda *arguments: cli(*arguments, "--json")


@pytest.fixture
def stored(here: Path) -> Path:
    """The stores of the old code in the cache folder of this test: all its answers, and its traits."""
    folder = Path(os.environ["MLLM3REC_CACHE"])
    for name in ("calls", "traits"):
        restore(name, folder / f"{name}.sqlite")
    return folder


def restore(name: str, path: Path) -> None:
    """Make a database of the old code again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(gzip.decompress((OLD_FILES / "sql" / f"{name}.sql.gz").read_bytes()).decode())


def count(path: Path, table: str) -> int:
    """Rows of a table."""
    with closing(sqlite3.connect(path)) as database:
        (found,) = database.execute(f"SELECT COUNT(*) FROM {table}").fetchone()  # noqa: S608 - our own names
    return int(found)


def command(name: str, out: str | None = None) -> list[str]:
    """A command of the old code; with `out`, into another folder."""
    words = list(COMMANDS[name])
    if out is not None:
        words[words.index("--out") + 1] = out
    return words


def out_of(name: str) -> Path:
    """Where a command of the old code wrote to."""
    words = COMMANDS[name]
    return Path(words[words.index("--out") + 1])


def done(ended: Ended) -> Ended:
    """Exit code 0."""
    assert ended.code == 0, ended.err + ended.out
    return ended


def refused(ended: Ended, words: str) -> None:
    """Exit code 2 and a message, no traceback."""
    assert ended.code == 2, ended.err + ended.out
    assert words in ended.err
    assert "Traceback" not in ended.err


def parsed(text: str) -> Any:
    """JSON with its numbers to nine digits: the last ones depend on the machine."""
    return json.loads(text, parse_float=lambda number: round(float(number), 9))


def manifest(run: Path) -> dict[str, Any]:
    """What a run says that it is."""
    found: dict[str, Any] = parsed((run / "manifest.json").read_text("utf-8"))
    del found["created"], found["versions"]
    # Recorded since these files were made.
    found.pop("dataset_sha256", None)
    found["configuration"].pop("fit_versions", None)
    found["configuration"].pop("fitted_with", None)
    return found


def rows(run: Path) -> dict[str, Any]:
    """The rows of a run without what they took."""
    lines = (run / "journal.jsonl").read_text("utf-8").splitlines()
    found = {row["user_id"]: row for row in (parsed(line)["row"] for line in lines)}
    for row in found.values():
        row.pop("usage", None)
    return found


def figures(run: Path) -> dict[str, Any]:
    """The metrics of a run without what they took."""
    found: dict[str, Any] = parsed((run / "metrics.json").read_text("utf-8"))
    del found["usage"]
    return found


def files_in(*folders: Path, apart_from: Iterable[Path] = ()) -> dict[str, bytes]:
    """Contents by path, without locks, reports and what lies below `apart_from`."""
    left_out = tuple(apart_from)
    return {
        str(path): path.read_bytes()
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.name not in (".lock", "comparison.json")
        and "report" not in path.parts
        and not any(path.is_relative_to(other) for other in left_out)
    }


def move_to(server: FakeOpenAI, run: Path) -> None:
    """Have a run say that it asks this server."""
    for path in run.glob("*.json*"):
        text = path.read_text("utf-8").replace(ADDRESS, server.url).replace(called(ADDRESS), called(server.url))
        path.write_text(text, "utf-8")


def called(address: str) -> str:
    """What manifests and ledgers call a server."""
    return f"server-{hashlib.sha256(address.encode()).hexdigest()[:8]}"


def cut(journal: Path, keep: int) -> bytes:
    """Leave so many rows and half of the next one, as `kill -9` does.

    Returns:
        The rows that were left.
    """
    lines = journal.read_bytes().splitlines(keepends=True)
    whole = b"".join(lines[:keep])
    journal.write_bytes(whole + lines[keep][: len(lines[keep]) // 2])
    return whole


def skip_unless_trainable() -> None:
    """Trained rankers need the extra `baselines`."""
    for library in ("sklearn", "cornac", "lightgbm"):
        pytest.importorskip(library)


# Runs


@pytest.mark.parametrize("name", ["prior", "learned", *MODELLED])
def test_a_finished_run_is_not_run_again(name: str, cli: CommandLine) -> None:
    if name == "learned":
        skip_unless_trainable()
    run = out_of(name)
    before = files_in(run)
    done(cli(*command(name), *NOBODY))
    after = files_in(run)
    assert {path: after[path] for path in before} == before
    assert rows(run).keys() == {json.loads(line)["user_id"] for line in cases_in(name)}


def cases_in(name: str) -> list[str]:
    """The lines of the cases a run of that name ranked."""
    return Path(COMMANDS[name][1]).read_text("utf-8").splitlines()[1:]


def test_a_finished_run_asks_its_server_nothing(cli: CommandLine, server: FakeOpenAI) -> None:
    run = out_of("listwise")
    move_to(server, run)
    before = files_in(run)
    done(cli(*command("listwise"), "--model", server.model()))
    assert files_in(run) == before
    assert not server.bodies


def test_a_killed_run_of_the_prior_goes_on(cli: CommandLine) -> None:
    run = out_of("prior")
    kept = cut(run / "journal.jsonl", keep=2)
    (run / "metrics.json").unlink()
    done(cli(*command("prior")))
    journal = (run / "journal.jsonl").read_bytes()
    assert journal.startswith(kept)
    assert journal.count(b"\n") == 5
    assert rows(run) == rows(OLD_FILES / run)
    assert figures(run) == figures(OLD_FILES / run)


def test_a_run_whose_budget_was_spent_goes_on(cli: CommandLine, server: FakeOpenAI) -> None:
    run, whole = out_of("stopped"), OLD_FILES / out_of("listwise")
    kept = (run / "journal.jsonl").read_bytes()
    assert kept.count(b"\n") == 3
    move_to(server, run)
    done(cli(*command("listwise", out=str(run)), "--model", server.model()))
    assert server.bodies
    assert (run / "journal.jsonl").read_bytes().startswith(kept)
    assert rows(run) == rows(whole)
    assert figures(run) == figures(whole)


@pytest.mark.parametrize(
    ("name", "more", "says"),
    [
        ("listwise", ["--weight", "0.5"], "configuration.weight"),
        ("listwise", ["--head", "3"], "configuration.head"),
        ("listwise", ["--explain", "1"], "configuration.explain"),
        ("listwise", ["--no-check"], "configuration.check"),
        ("listwise", ["--schema", "outdoor.toml"], "configuration.schema."),
        ("listwise", ["--mar", f"{ADDRESS}#other"], "configuration.models.mar"),
        ("listwise", ["--ranker", "embedding"], "ranker"),
        ("own-settings", ["--check"], "configuration.check"),
        ("learned", ["--seed", "1"], "configuration.seed"),
        ("compiled", ["--ranker", "listwise", "--model", f"{ADDRESS}#fake"], "configuration.artifact"),
        ("prior", ["--ranker", "knn"], "ranker"),
    ],
)
def test_another_run_is_still_refused(name: str, more: list[str], says: str, cli: CommandLine) -> None:
    if name == "learned":
        skip_unless_trainable()
    before = files_in(out_of(name))
    refused(cli(*command(name), *NOBODY, *more), says)
    assert files_in(out_of(name)) == before


def test_a_run_of_other_cases_or_another_encoder_is_still_refused(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = ["two.jsonl" if word == "test.jsonl" else word for word in command("prior")]
    refused(cli(*other), "on cases with sha256")
    monkeypatch.delenv("MLLM3REC_ENCODER")
    refused(cli(*["popularity" if word == "prior" else word for word in command("prior")]), "configuration.encoder")


@pytest.mark.parametrize("name", ["prior", *MODELLED])
def test_the_same_run_anew_is_the_same(name: str, cli: CommandLine, stored: Path) -> None:
    """Configuration, rows, and prompts: it finds the stored answers and traits by their keys, and adds none.

    These runs were made with version 2 of the prior.
    """
    databases = {"answers": stored / "calls.sqlite", "phrases": stored / "traits.sqlite"}
    before = {table: count(path, table) for table, path in databases.items()}
    done(cli(*command(name, out="anew"), *NOBODY, *FORMULA))
    assert {table: count(path, table) for table, path in databases.items()} == before
    assert manifest(Path("anew")) == manifest(out_of(name))
    assert rows(Path("anew")) == rows(out_of(name))


def test_traits_are_distilled_again_from_stored_answers(cli: CommandLine, stored: Path) -> None:
    (stored / "traits.sqlite").unlink()
    done(cli(*command("listwise", out="anew"), *NOBODY, *FORMULA))
    assert rows(Path("anew")) == rows(out_of("listwise"))


def test_a_trained_run_anew_has_the_newest_version(cli: CommandLine) -> None:
    skip_unless_trainable()
    done(cli(*command("learned", out="anew")))
    new, old = manifest(Path("anew")), manifest(out_of("learned"))
    assert new["configuration"].pop("settings")["version"] == 2
    assert "version" not in old["configuration"].pop("settings")
    assert new == old
    assert rows(Path("anew")).keys() == rows(out_of("learned")).keys()


def test_a_killed_trained_run_goes_on_with_its_own_version(cli: CommandLine) -> None:
    """Its rows are not compared: trees and factors are what the installed libraries make of them."""
    skip_unless_trainable()
    run = out_of("learned")
    kept = cut(run / "journal.jsonl", keep=2)
    done(cli(*command("learned")))
    assert (run / "journal.jsonl").read_bytes().startswith(kept)
    assert manifest(run) == manifest(OLD_FILES / run)
    assert rows(run).keys() == rows(OLD_FILES / run).keys()


@pytest.mark.parametrize("name", ["dev", "test", "two"])
def test_cases_drawn_anew_are_the_same(name: str, cli: CommandLine) -> None:
    done(cli(*command(name, out="anew.jsonl")))
    (new, *drawn), (old, *lines) = (path.read_text("utf-8").splitlines() for path in (Path("anew.jsonl"), out_of(name)))
    assert drawn == lines
    assert json.loads(new) | {"source": "shop"} == json.loads(old)


def test_old_runs_are_audited_and_compared(cli: CommandLine) -> None:
    assert printed(cli(*command("audit")), "audit") == parsed(json.dumps(PRINTED["audit"]))
    assert printed(cli(*command("against"), *NOBODY), "against") == parsed(json.dumps(PRINTED["against"]))


def printed(ended: Ended, name: str) -> Any:
    """What a command printed, as far as it was kept of the old code."""
    found = parsed(done(ended).out)
    return {key: found[key] for key in PRINTED[name]}


# Studies


def test_a_finished_study_is_not_run_again(cli: CommandLine) -> None:
    root = out_of("study")
    before = files_in(root)
    assert printed(cli(*command("status")), "status") == PRINTED["status"]
    told = done(cli(*command("study"), *NOBODY)).json
    assert told["incomplete"] == []
    assert files_in(root) == before
    (page,) = (path for path in map(Path, told["written"]) if path.suffix == ".html")
    assert "A small study" in page.read_text("utf-8")


def test_runs_missing_from_a_study_are_run_and_no_others(cli: CommandLine, stored: Path) -> None:
    resume_study(cli, UNFIT)
    for cell in UNFIT[:3]:
        run = out_of("study") / cell
        assert rows(run) == rows(OLD_FILES / run)
        assert figures(run) == figures(OLD_FILES / run)
    ranks = out_of("study") / UNFIT[3] / "ranks.json"
    assert parsed(ranks.read_text("utf-8")) == parsed((OLD_FILES / ranks).read_text("utf-8"))


def test_trained_runs_missing_from_a_study_are_run_with_the_settings_found_before(
    cli: CommandLine, stored: Path
) -> None:
    skip_unless_trainable()
    resume_study(cli, FITTED)
    for cell in FITTED:
        assert rows(out_of("study") / cell).keys() == rows(OLD_FILES / out_of("study") / cell).keys()


def resume_study(cli: CommandLine, removed: Iterable[str]) -> None:
    """Remove runs, but not those below them, and have the study make them again."""
    folders = [out_of("study") / cell for cell in removed]
    for path in (path for folder in folders for path in folder.iterdir() if path.is_file()):
        path.unlink()
    ended = cli(*command("status"))
    assert ended.code == 1
    assert [row["run"] for row in ended.json["runs"] if row["state"] != "done"] == sorted(
        removed, key=[row["run"] for row in PRINTED["status"]["runs"]].index
    )
    before = files_in(out_of("study"))
    ended = done(cli(*command("study"), *NOBODY))
    assert ended.json["incomplete"] == []
    assert all(Path(path).exists() for path in ended.json["written"])
    after = files_in(out_of("study"))
    assert {path: after[path] for path in before} == before
    assert {Path(path).parent for path in after.keys() - before.keys()} == set(folders)
    for folder in folders:
        assert manifest(folder) == manifest(OLD_FILES / folder)
    assert printed(cli(*command("status")), "status") == PRINTED["status"]


def test_a_study_of_another_configuration_is_still_refused(cli: CommandLine) -> None:
    study = Path(COMMANDS["study"][2])
    study.write_text(study.read_text("utf-8").replace('ranker = "listwise"', 'ranker = "listwise"\nweight = 0.5'))
    refused(cli(*command("study"), *NOBODY), "configuration.weight")


# Comparisons


@pytest.mark.parametrize("name", ["compare", "search"])
def test_a_finished_comparison_is_not_run_again(name: str, cli: CommandLine) -> None:
    root = out_of("compare")
    before = files_in(root)
    trials = 0
    if name == "search":
        restore("search", root / "search.sqlite")
        trials = count(root / "search.sqlite", "trials")
    assert printed(cli(*command(name), *NOBODY), "compare") == parsed(json.dumps(PRINTED["compare"]))
    assert files_in(root, apart_from=[root / "search.sqlite"]) == before
    if name == "search":
        assert count(root / "search.sqlite", "trials") == trials == 2


def test_a_comparison_anew_finds_all_answers_and_has_the_newest_prior(cli: CommandLine, stored: Path) -> None:
    done(cli(*command("compare", out="anew"), *NOBODY))
    for mix in ("a_a_a", "a_a_b"):
        new, old = manifest(Path("anew") / mix), manifest(out_of("compare") / mix)
        assert (new["configuration"].pop("prior"), old["configuration"].pop("prior")) == (3, 2)
        assert new == old
        ranked = rows(Path("anew") / mix)
        for user, row in rows(out_of("compare") / mix).items():
            assert ranked[user]["scores"]["mar"] == row["scores"]["mar"]
            assert ranked[user]["scores"]["prior"] != row["scores"]["prior"]


def test_a_comparison_goes_on_with_its_own_prior(cli: CommandLine, stored: Path) -> None:
    done_before = out_of("compare") / "a_a_b"
    for path in done_before.iterdir():
        path.unlink()
    done(cli(*command("compare"), *NOBODY))
    assert manifest(done_before) == manifest(OLD_FILES / done_before)
    assert rows(done_before) == rows(OLD_FILES / done_before)


def test_a_comparison_of_another_configuration_is_still_refused(cli: CommandLine) -> None:
    grid = Path("grid.toml")
    grid.write_text(grid.read_text("utf-8").replace("temperature = 0.5", "temperature = 0.6"))
    refused(cli(*command("compare"), *NOBODY), "configuration.roles")


# Artifacts


def test_an_artifact_is_sound_and_says_what_it_asks(cli: CommandLine) -> None:
    assert printed(cli(*command("verify")), "verify") == PRINTED["verify"]
    assert printed(cli(*command("show")), "show") == PRINTED["show"]
    path = Path("artifact/program.json")
    path.write_bytes(path.read_bytes().replace(b"general", b"special"))
    refused(cli(*command("verify")), "program.json")


def test_an_artifact_is_not_evaluated_on_shoppers_it_knows(cli: CommandLine) -> None:
    known = ["dev.jsonl" if word == "two.jsonl" else word for word in command("compiled", out="anew")]
    refused(cli(*known, *NOBODY), "--part test")


def test_a_finished_compile_freezes_the_same_again(cli: CommandLine, stored: Path, hurried: None) -> None:
    """Its check on held-out shoppers is made again, from stored answers: nobody listens at the address it asks."""
    artifact = out_of("compile")
    study = artifact / "search" / "study.sqlite"
    restore("compile", study)
    made = count(study, "trials")
    before = files_in(artifact, apart_from=[artifact / "search", artifact / "manifest.json"])
    told = parsed(done(cli(*command("compile"))).out)
    assert count(study, "trials") == made == 2
    assert files_in(artifact, apart_from=[artifact / "search", artifact / "manifest.json"]) == before
    # The versions of today are in it, and with them its hash may be another.
    apart = {"created", "versions", "sha256", "artifact"}
    old = parsed((OLD_FILES / artifact / "manifest.json").read_text("utf-8"))
    for usage in (*told["spent"].values(), *old["spent"].values()):
        del usage["cache_hits"]
    assert told["verdict"].pop("against_prior")["ndcg"]["n"] > 0, "no compile said that before"
    assert {key: told[key] for key in told.keys() - apart} == {key: old[key] for key in old.keys() - apart}


def test_a_compile_with_other_options_is_still_refused(cli: CommandLine, stored: Path) -> None:
    refused(cli(*command("compile"), "--interactions", "2"), "interactions")
