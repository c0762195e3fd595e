"""`mllm3rec cache` and `--fresh`: what is stored, what is removed, and what is asked anew."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from mllm3rec.stages.parts import parts_folder
from programs.lm.cache_contents import answer_counts
from programs.lm.fresh_answers import SALT_FILE
from programs.runtime.environment import cache_dir
from tests.support.command_line import CommandLine
from tests.support.fake_server import Body, FakeOpenAI, Reply, last_user, sensible


def evaluated(cli: CommandLine, server: FakeOpenAI, folder: Path, *more: str) -> int:
    """The calls of a run with four users."""
    cases = folder.parent / "cases.json"
    if not cases.exists():
        assert cli("cases", "demo", "--users", 4, "--out", cases).code == 0
    before = len(server.bodies)
    ended = cli("evaluate", cases, "--ranker", "listwise", "--model", server.model(), "--out", folder, *more)
    assert ended.code == 0, ended.err
    return len(server.bodies) - before


def test_answers_by_model_and_role(cli: CommandLine, server: FakeOpenAI, tmp_path: Path) -> None:
    calls = evaluated(cli, server, tmp_path / "run")
    found = cli("cache", "--json").json
    assert sum(one["answers"] for one in found["answers"]) == calls
    assert {one["role"] for one in found["answers"]} == {"mope", "mote", "mar"}
    assert {one["kind"] for one in found["sizes"]} >= {"answers", "traits"}
    (model,) = {one["model"] for one in found["answers"]}
    assert model in cli("cache").out
    assert cli("cache", "forget", "nobody").code == 2
    assert cli("cache", "forget", model, "--json").json == {"removed": calls}
    assert answer_counts(cache_dir()) == []
    assert 0 < evaluated(cli, server, tmp_path / "again") < calls  # traits are in their own store
    assert cli("cache", "clear", "traits", "--yes").code == 0
    assert cli("cache", "clear", "answers", "--yes").code == 0
    assert evaluated(cli, server, tmp_path / "third") == calls


def test_answers_of_older_versions_are_counted_by_what_the_server_said(cli: CommandLine, server: FakeOpenAI) -> None:
    cli("recommend", "demo", "--history", "D001", "--model", server.model())
    with sqlite3.connect(cache_dir() / "calls.sqlite") as database:
        database.execute("UPDATE answers SET answer = json_remove(answer, '$._model', '$._role')")
    assert {(one.model, one.role) for one in answer_counts(cache_dir())} == {("fake", "")}


def test_what_is_paid_or_fetched_is_not_cleared(cli: CommandLine) -> None:
    for kind in ("batches", "weights", "everything"):
        ended = cli("cache", "clear", kind, "--yes")
        assert ended.code == 2
        assert "choose one of" in ended.err


def test_fresh_asks_anew_once(cli: CommandLine, server: FakeOpenAI, tmp_path: Path) -> None:
    calls = evaluated(cli, server, tmp_path / "run")
    assert evaluated(cli, server, tmp_path / "stored") == 0
    assert evaluated(cli, server, tmp_path / "fresh", "--fresh") == calls
    assert (tmp_path / "fresh").stat().st_mode & 0o777 == 0o700
    journal = tmp_path / "fresh" / "journal.jsonl"
    lines = journal.read_text().splitlines(keepends=True)
    journal.write_text("".join(lines[:2]))  # as if it had been killed
    for more in ((), ("--fresh",)):
        assert evaluated(cli, server, tmp_path / "fresh", *more) == 0
    assert evaluated(cli, server, tmp_path / "stored again") == 0
    assert evaluated(cli, server, tmp_path / "other", "--fresh") == calls
    assert json.loads((tmp_path / "fresh" / "manifest.json").read_text())["ranker"] == "listwise"


def test_fresh_is_refused_for_a_run_that_was_begun_without(
    cli: CommandLine, server: FakeOpenAI, tmp_path: Path
) -> None:
    evaluated(cli, server, tmp_path / "run")
    cases = tmp_path / "cases.json"
    options = ("--ranker", "listwise", "--model", server.model(), "--out", tmp_path / "run", "--fresh")
    ended = cli("evaluate", cases, *options)
    assert ended.code == 2
    assert "was begun with stored answers" in ended.err
    assert not (tmp_path / "run" / SALT_FILE).exists()


def test_fresh_for_many_users_goes_on_where_it_was_stopped(
    cli: CommandLine, server: FakeOpenAI, tmp_path: Path
) -> None:
    def profiled(name: str, *more: str) -> int:
        before = len(server.bodies)
        models = ("--ranker", "listwise", "--mope", server.model())
        ended = cli("profile", "demo", "--users", 6, *models, "--out", tmp_path / f"{name}.parquet", *more)
        assert ended.code in (0, 1, 3), ended.err
        return len(server.bodies) - before

    calls = profiled("first")
    assert calls >= 6
    assert profiled("stored") == 0
    begun = profiled("fresh", "--fresh", "--max-calls", "2")
    assert 0 < begun < calls
    assert begun + profiled("fresh") == calls, "the folder of what was begun says that it is fresh"
    assert profiled("again", "--fresh") == calls
    ended = cli("profile", "demo", "--users", 6, "--out", tmp_path / "again.parquet", "--fresh")
    assert ended.code == 2 and "is there already" in ended.err


@pytest.mark.parametrize("again", [("--fresh",), ()])
@pytest.mark.parametrize("reply", [Reply("no", status=400), Reply("nothing that could be read")])
def test_rows_without_an_answer_are_asked_anew_by_the_same_command(
    cli: CommandLine, tmp_path: Path, again: tuple[str, ...], reply: Reply
) -> None:
    well, out = [True], tmp_path / "t.parquet"

    def respond(body: Body) -> Reply:
        return sensible(body) if well or "Waxed Canvas" not in last_user(body) else reply

    with FakeOpenAI(respond) as server:
        command = ("distill", "demo", "--mote", server.model(), "--out", out, "--json")
        stored = cli(*command[:-2], tmp_path / "stored.parquet", "--json").json["usage"]["calls"]
        well.clear()
        ended = cli(*command, "--fresh")
        (bad,) = {status: count for status, count in ended.json["status"].items() if status != "ok"}.values()
        assert (ended.code, {path.name for path in parts_folder(out).iterdir()} - {".lock"}) == (1, {SALT_FILE})
        well.append(True)
        before = len(server.bodies)
        ended = cli(*command, *again, "--retry-unparsable")
        assert (ended.code, ended.json["status"], len(server.bodies) - before) == (0, {"ok": stored}, bad)
        assert not parts_folder(out).exists()
        assert cli(*command, "--fresh").code == 2


def test_a_dry_run_with_fresh_is_the_beginning_of_the_run(cli: CommandLine, server: FakeOpenAI, tmp_path: Path) -> None:
    command = ("distill", "demo", "--mote", server.model(), "--json", "--out")
    calls = cli(*command, tmp_path / "stored.parquet").json["usage"]["calls"]
    sample = cli(*command, tmp_path / "t.parquet", "--fresh", "--dry-run").json["usage"]["calls"]
    assert 0 < sample < calls
    ended = cli(*command, tmp_path / "t.parquet", "--fresh")
    assert (ended.code, ended.json["usage"]["calls"]) == (0, calls - sample)
