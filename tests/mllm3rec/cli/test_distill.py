"""`mllm3rec distill`."""

from __future__ import annotations

from pathlib import Path

from tests.support.cases import cases_file
from tests.support.command_line import CommandLine
from tests.support.fake_server import FakeOpenAI, Reply, answering


def test_every_candidate_is_distilled_once(cli: CommandLine, tmp_path: Path, server: FakeOpenAI) -> None:
    path = tmp_path / "cases.jsonl"
    items = {item for case in cases_file(path, 2, negatives=4).cases for item in case.candidates}
    ended = cli("distill", path, "--mote", server.model(), "--json")
    assert ended.code == 0
    assert (ended.json["items"], ended.json["calls"], len(server.bodies)) == (len(items),) * 3
    shown = cli("distill", path, "--mote", server.model())
    assert shown.code == 0
    assert f"{len(items)} items, " in shown.out
    assert len(server.bodies) == len(items), "traits are stored"


def test_answers_that_cannot_be_read_are_counted_and_fail_it(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    items = {item for case in cases_file(path, 1, negatives=1).cases for item in case.candidates}
    with answering(traits=lambda _: Reply("hm")) as server:
        ended = cli("distill", path, "--mote", server.model(), "--json")
    assert ended.code == 1
    assert (ended.json["traits"], ended.json["unparsable"]) == (0, len(items))
