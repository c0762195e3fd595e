"""Which loader reads a folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluate.data.load import load_dataset
from programs.runtime.errors import InputError
from tests.support.files import fails, write


def test_unknown_directories_say_what_was_looked_for(tmp_path: Path) -> None:
    fails(
        tmp_path / "nowhere",
        "nowhere: no such directory or file",
        "interactions and items",
        "meta_X.json",
        "u.data",
        "demo",
    )
    fails(tmp_path, "found: nothing", "expected", "ratings.dat")
    write(tmp_path / "interactions.csv", "user_id,item_id\nu,a\n")
    fails(tmp_path, "found: interactions.csv", "items.csv (.parquet, .jsonl) with the items and their texts is missing")
    fails(tmp_path, f"or give the file itself, {tmp_path / 'interactions.csv'}")
    fails(write(tmp_path / "u.data", "1\t2"), "u.data: not a table", f"the directory of a dataset, such as {tmp_path}")


def test_a_folder_around_a_dataset_names_it(tmp_path: Path) -> None:
    write(tmp_path / "shop" / "interactions.csv", "user_id,item_id\nu,a\n")
    write(tmp_path / "shop" / "items.csv", "item_id,title\na,Kite\n")
    write(tmp_path / "empty" / "x.txt", "x")
    fails(tmp_path, f"did you mean {tmp_path / 'shop'}?")


def test_files_of_many_long_names_do_not_flood(tmp_path: Path) -> None:
    for number in range(12):
        write(tmp_path / f"{number:02}{'x' * 200}", "x")
    with pytest.raises(InputError) as refused:
        load_dataset(tmp_path)
    assert len(str(refused.value)) < 1500
    assert "and 4 more" in str(refused.value)


def test_the_same_file_twice_is_not_guessed_at(tmp_path: Path) -> None:
    write(tmp_path / "items.jsonl", "{}")
    write(tmp_path / "interactions.csv", "x")
    write(tmp_path / "interactions.jsonl.gz", "x")
    fails(tmp_path, "interactions.csv and interactions.jsonl.gz", "keep one")


def test_demo_is_built_in() -> None:
    assert len(load_dataset("demo").items) > 0
