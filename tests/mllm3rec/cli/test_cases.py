"""`mllm3rec cases`."""

from __future__ import annotations

from pathlib import Path

from evaluate.protocol.cases import load_cases
from tests.support.command_line import CommandLine
from tests.support.files import jsonl, write


def test_cases_are_written_and_counted(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    ended = cli("cases", "demo", "--users", 3, "--negatives", 9, "--out", path, "--json")
    assert ended.code == 0
    drawn = load_cases(path)
    assert (ended.json["users"], ended.json["negatives"], ended.json["sha256"]) == (3, 9, drawn.sha256)
    shown = cli("cases", "demo", "--users", 3, "--negatives", 9, "--out", path)
    assert shown.code == 0
    assert "3 users, 1 + 9 candidates each" in shown.out
    assert drawn.sha256[:12] in shown.out


def test_fewer_users_than_asked_for_and_missing_ratings_are_noted(cli: CommandLine, tmp_path: Path) -> None:
    bought = [{"user_id": user, "item_id": item} for user, items in (("u", "ab"), ("v", "bc")) for item in items]
    write(tmp_path / "shop" / "items.jsonl", jsonl([{"item_id": item, "title": item} for item in "abcd"]))
    write(tmp_path / "shop" / "interactions.jsonl", jsonl(bought))
    options = ("--part", "all", "--users", 5, "--negatives", 1, "--out", tmp_path / "cases.jsonl")
    ended = cli("cases", tmp_path / "shop", *options)
    assert ended.code == 0
    assert "note: no ratings in 'shop': every interaction counts as liked" in ended.err
    assert "note: only 2 users of part 'all' have a target of type last-liked" in ended.err
