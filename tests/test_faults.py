"""Faults that users of neighbouring software reported, each with its right value here."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluate.data.load import load_dataset
from evaluate.experiments.grid import read_grid
from programs.runtime.config_file import load_schema
from programs.runtime.errors import InputError
from tests.support.command_line import run

TABLE = "method,dataset,HR@5,NDCG@5,HR@10,NDCG@10\n"
GRID = 'mope = ["a"]\nmote = ["a"]\nmar = ["a"]\n[backends.a]\nmodel = "local/smollm2-135m"\n'
SCHEMA = 'name = "films"\n' + "".join(
    f'[[dimensions]]\nname = "{name}"\ndefinition = "wants it"\nkind = "emotional"\n' for name in ("thrill", "comfort")
)


def test_square_brackets_in_names_are_shown_and_never_markup(tmp_path: Path) -> None:
    rows = ["SASRec [ours],Toys [full]", "SASRec [theirs],Toys [cold]", "GRU4Rec[/13],[bold]Toys"]
    table = tmp_path / "[red]table.csv"
    table.write_text(TABLE + "".join(f"{row},.412,.300,.523,.336\n" for row in rows))
    shown = run("audit", table)
    assert shown.exit_code == 0
    for text in ("SASRec [ours]", "SASRec [theirs]", "Toys [full]", "GRU4Rec[/13]", "[bold]Toys"):
        assert text in shown.stdout
    drawn = run("cases", "demo", "--users", 3, "--out", tmp_path / "[bold]w.jsonl")
    assert "[bold]w.jsonl" in drawn.stdout.replace("\n", "")


@pytest.mark.parametrize("users", ["²", "-1", "0", "1.5", "many", "٣"])
def test_a_number_of_users_is_a_number_or_refused(tmp_path: Path, users: str) -> None:
    refused = run("cases", "demo", "--users", users, "--out", tmp_path / "x.jsonl")
    assert isinstance(refused.exception, InputError)
    assert "--users" in str(refused.exception)


def test_configuration_files_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    grid, schema = tmp_path / "grid.toml", tmp_path / "films.toml"
    grid.write_text(GRID, "utf-8-sig")
    schema.write_text(SCHEMA, "utf-8-sig")
    assert read_grid(grid).mar == ("a",)
    assert load_schema(schema).names == ("thrill", "comfort")


def test_a_long_cell_of_a_table_is_read(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item_id,title,description\ni1,Rug," + "word " * 30_000 + "\ni2,Mug,short\n")
    (tmp_path / "interactions.csv").write_text("user_id,item_id\nu,i1\nu,i2\n")
    assert len(load_dataset(tmp_path).items["i1"].description) == 5 * 30_000 - 1
