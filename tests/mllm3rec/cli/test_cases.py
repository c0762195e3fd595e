"""`mllm3rec cases`."""

from __future__ import annotations

from pathlib import Path

from evaluate.protocol.cases import load_cases, write_cases
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


def test_a_file_of_other_cases_is_kept_unless_it_is_said(cli: CommandLine, tmp_path: Path) -> None:
    path, notes = tmp_path / "cases.jsonl", tmp_path / "notes.txt"
    notes.write_text("mine")
    first = cli("cases", "demo", "--users", 3, "--out", path, "--json").json["sha256"]
    other = ("cases", "demo", "--users", 3, "--seed", 1, "--json", "--out")
    for file, words in ((path, ["other cases", first[:12], "--replace"]), (notes, ["is no cases file"])):
        ended = cli(*other, file)
        assert ended.code == 2
        assert not [word for word in (str(file), *words) if word not in ended.err]
    assert (load_cases(path).sha256, notes.read_text()) == (first, "mine")
    assert cli(*other, path, "--replace").json["sha256"] == load_cases(path).sha256 != first


def test_fewer_users_than_asked_for_and_missing_ratings_are_noted(cli: CommandLine, tmp_path: Path) -> None:
    bought = [{"user_id": user, "item_id": item} for user, items in (("u", "ab"), ("v", "bc")) for item in items]
    write(tmp_path / "shop" / "items.jsonl", jsonl([{"item_id": item, "title": item} for item in "abcd"]))
    write(tmp_path / "shop" / "interactions.jsonl", jsonl(bought))
    options = ("--part", "all", "--users", 5, "--negatives", 1, "--out", tmp_path / "cases.jsonl")
    ended = cli("cases", tmp_path / "shop", *options)
    assert ended.code == 0
    assert "note: no ratings in 'shop': every interaction counts as liked" in ended.err
    assert "note: only 2 users of part 'all' have a target of type last-liked" in ended.err


def test_item_cold_start_is_matched_unless_it_is_said_and_uniform_lists_are_warned_about(
    cli: CommandLine, tmp_path: Path
) -> None:
    options = ("--part", "all", "--setting", "item-cold", "--out", tmp_path / "cases.jsonl", "--replace", "--json")
    assert cli("cases", "demo", "--negatives", 5, *options).json["sampling"] == "matched"
    assert cli("cases", "demo", "--negatives", 5, "--part", "all", *options[4:]).json["sampling"] == "uniform"
    ended = cli("cases", "demo", "--negatives", 19, "--sampling", "uniform", *options)
    assert ended.json["sampling"] == "uniform"
    (warning,) = ended.json["warnings"]
    assert (warning["kind"], warning["count"]) == ("the target is what nobody has", ended.json["users"])
    assert f"warning: {warning['message']}" in ended.err


def test_an_audit_of_cases_draws_them_again(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "cases.jsonl"
    cli("cases", "demo", "--users", 30, "--negatives", 9, "--out", path)
    clean = cli("audit", path, "--json")
    assert (clean.code, clean.json["users"], clean.json["leaks"], clean.json["warnings"]) == (0, 30, [], [])
    assert "30 cases, 0 leaks, 0 warnings" in cli("audit", path).out
    cases = load_cases(path)
    write_cases(path, cases.protocol, [case.model_copy(update={"candidates": case.candidates[::-1]}) for case in cases])
    changed = cli("audit", path, "--json")
    assert (changed.code, len(changed.json["leaks"])) == (1, 30)
    assert changed.json["leaks"][0]["user_id"] == cases[0].user_id
    shown = cli("audit", path)
    assert shown.code == 1
    assert "30 cases, 30 leaks, of which 20 are shown" in shown.out
    refused = cli("evaluate", path, "--ranker", "popularity", "--out", tmp_path / "run")
    assert refused.code == 2
    assert "held-out interactions leak" in refused.err


def test_warnings_about_data_are_shown_when_it_is_described(cli: CommandLine, tmp_path: Path) -> None:
    rows = [
        {"user_id": user, "item_id": item, "timestamp": 1000 - time}
        for user, items in (("ann", "abcde"), ("bob", "abcdef"), ("cid", "vwxyz"))
        for time, item in enumerate(items)
    ]
    write(tmp_path / "shop" / "items.jsonl", jsonl([{"item_id": item, "title": item} for item in "abcdefvwxyz"]))
    write(tmp_path / "shop" / "interactions.jsonl", jsonl(rows))
    ended = cli("data", "describe", tmp_path / "shop", "--json")
    assert [(one["kind"], one["count"], one["examples"]) for one in ended.json["warnings"]] == [
        ("second accounts", 2, ["ann", "bob"])
    ]
    assert "warning: 2 of 3 users have nearly the same items" in ended.err
    assert cli("data", "describe", "demo", "--json").json["warnings"] == []


def test_own_columns_and_one_date_for_all(cli: CommandLine, tmp_path: Path) -> None:
    rows = "".join(f"u{n % 7};i{n % 29};2024-01-{1 + n % 28:02};x\n" for n in range(120))
    sales = write(tmp_path / "sales.csv", "who;what;bought;till\n" + rows)
    columns = ("--columns", "user_id=who, item_id=what,timestamp=bought")
    described = cli("data", "describe", sales, *columns)
    assert described.code == 0 and "Fields of sales.csv that are not used: till." in described.err
    drawn = tmp_path / "cases.jsonl"
    later = ("--setting", "time", "--since", "2024-01-20", "--part", "all", "--negatives", 5, "--out", drawn)
    ended = cli("cases", sales, *columns, *later)
    assert ended.code == 0, ended.err
    assert "every user's interactions before 2024-01-20" in ended.err
    assert cli("audit", drawn).code == 0
    assert cli("audit", drawn, "--dataset", sales.rename(tmp_path / "moved.csv")).code == 0
    for given, problem in [("user_id", "give each column once, as user_id=who"), ("who=user_id", "not one of our")]:
        ended = cli("data", "describe", tmp_path / "moved.csv", "--columns", given)
        assert ended.code == 2 and problem in ended.err
