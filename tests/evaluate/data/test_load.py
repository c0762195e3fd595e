"""Which loader reads a folder."""

from __future__ import annotations

from pathlib import Path

from evaluate.data.load import load_dataset
from tests.support.files import fails, write


def test_unknown_directories_say_what_was_looked_for(tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", "nowhere: no such directory", "interactions and items", "meta_X.json", "u.data", "demo")
    fails(tmp_path, "found: nothing", "expected", "ratings.dat")
    write(tmp_path / "interactions.csv", "user_id,item_id\nu,a\n")
    fails(tmp_path, "found: interactions.csv", "interactions and items")
    fails(tmp_path / "interactions.csv", "not a directory")


def test_the_same_file_twice_is_not_guessed_at(tmp_path: Path) -> None:
    write(tmp_path / "items.jsonl", "{}")
    write(tmp_path / "interactions.csv", "x")
    write(tmp_path / "interactions.jsonl.gz", "x")
    fails(tmp_path, "interactions.csv and interactions.jsonl.gz", "keep one")


def test_demo_is_built_in() -> None:
    assert len(load_dataset("demo").items) > 0
