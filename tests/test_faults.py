"""Faults that users of neighbouring software reported, each with its right value here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import mllm3rec as m3
from evaluate.data.load import load_dataset
from evaluate.experiments.grid import read_grid
from evaluate.protocol.cases import users_short_of_items
from programs.mote import fallback_text, refusal
from programs.runtime.config_file import load_schema
from programs.runtime.errors import InputError
from signatures.types import Item
from tests.support.command_line import run
from tests.support.files import jsonl

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


def write(folder: Path, **files: str) -> Path:
    """A folder with files, by name with `_` for the dot of the ending."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / ".".join(name.rsplit("_", 1))).write_text(text, "utf-8")
    return folder


REVIEWS_2018 = jsonl(
    [
        {"reviewerID": user, "asin": item, "overall": 5.0, "unixReviewTime": 1_400_000_000 + day}
        for user in ("A1", "A2")
        for day, item in enumerate(("B0QA", "B0QB", "B0QC", "B0QD"))
    ]
)


def amazon_2018(folder: Path, *meta: dict[str, Any]) -> dict[str, Item]:
    return load_dataset(write(folder, Things_5_json=REVIEWS_2018, meta_Things_json=jsonl(meta))).items


class TestAmazon:
    def test_features_repeated_in_the_category_are_no_levels_of_it(self, tmp_path: Path) -> None:
        features = ["3 layers of soft fabric", '6" long, fits up to 7 years', "You &amp; me"]
        path = ["Clothing", "Costumes", "Girls", *features]
        items = amazon_2018(
            tmp_path,
            {"asin": "B0QA", "title": "Skirt", "category": path, "feature": features},
            {"asin": "B0QB", "title": "Hat", "category": ["Clothing", "Hats"], "feature": []},
        )
        assert items["B0QA"].categories == (("Clothing", "Costumes", "Girls"),)
        assert fallback_text(items["B0QA"]) == "Girls"
        assert items["B0QB"].categories == (("Clothing", "Hats"),)

    def test_markup_of_the_page_is_left_out_and_comparisons_stay(self, tmp_path: Path) -> None:
        items = amazon_2018(
            tmp_path,
            {
                "asin": "B0QA",
                "title": '<span class="a-size-medium">Kettle</span> <b>D</b>',
                "description": ["<p>Boils <i>fast</i>.</p><br />", "<style>.a{}</style>5 < 6 and I <3 it"],
            },
            {"asin": "B0QB", "title": "Planner B", "brand": "Visit Amazon's Ines Q. Writer Page"},
            {"asin": "B0QC", "title": "Planner C", "brand": "\n   by\n   Visit Amazon's Ines Q. Writer Page"},
            {"asin": "B0QD", "title": "Planner D", "brand": "by\n  \n  Zenwick"},
        )
        assert (items["B0QA"].title, items["B0QA"].description) == ("Kettle D", "Boils fast. 5 < 6 and I <3 it")
        assert items["B0QB"].brand == items["B0QC"].brand == "Ines Q. Writer"
        assert items["B0QD"].brand == "Zenwick"
        assert refusal("Ines Q. Writer planner", items["B0QB"]) == "brand"

    def test_an_item_with_nothing_but_features_is_kept(self, tmp_path: Path) -> None:
        items = amazon_2018(
            tmp_path,
            {"asin": "B0QA", "title": "", "feature": ["Gentle on skin", "No scent"]},
            {"asin": "B0QB", "title": "Cream", "feature": ["Rich"]},
        )
        assert items["B0QA"].text == "Gentle on skin No scent"
        assert items["B0QB"].text == "Cream"

    def test_a_character_reference_of_thousands_of_digits_is_text(self, tmp_path: Path) -> None:
        items = amazon_2018(
            tmp_path, {"asin": "B0QA", "title": f"Cup &#{'9' * 5000};"}, {"asin": "B0QB", "title": "Mug"}
        )
        assert items["B0QA"].title.startswith("Cup &#999")


class TestTables:
    ITEMS = "item_id,title\ni1,Rug\ni2,Mug\n"

    def test_a_list_written_into_a_cell_is_a_list(self, tmp_path: Path) -> None:
        data = load_dataset(
            write(
                tmp_path,
                items_csv="item_id,title,categories\ni1,Rug,\"['Home & Garden', 'Rugs']\"\n"
                'i2,Mug,"[""Kitchen"", ""Mugs""]"\ni3,Fan,[sale] Fans\n'
                "i4,Pan,['Kitchen' 'Pans & Pots']\ni5,Jar,\"('Kitchen', 'Jars')\"\ni6,Cup,(blue) cups\n",
                interactions_csv="user_id,item_id\nu,i1\nu,i2\n",
            )
        )
        assert data.items["i1"].categories == (("Home & Garden", "Rugs"),)
        assert data.items["i2"].categories == (("Kitchen", "Mugs"),)
        assert data.items["i3"].categories == (("[sale] Fans",),)
        assert data.items["i4"].categories == (("Kitchen", "Pans & Pots"),)
        assert data.items["i5"].categories == (("Kitchen", "Jars"),)
        assert data.items["i6"].categories == (("(blue) cups",),)

    def test_columns_of_other_names_are_read_or_named(self, tmp_path: Path) -> None:
        data = load_dataset(
            write(
                tmp_path,
                items_csv=self.ITEMS,
                interactions_csv="userId,Item_ID,weight,datetime\nu1,i1,1,2018-07-07 00:48:16\nu1,i2,1,2018-07-06\n",
            )
        )
        assert data.histories == {"u1": ("i2", "i1")}
        assert data.sequences["u1"][1].timestamp == 1_530_924_496
        notes = "\n".join(data.notes)
        assert "userId as user_id" in notes and "datetime as timestamp" in notes
        assert "interactions.csv that are not used: weight" in notes

    def test_the_index_column_of_a_frame_is_no_metadata(self, tmp_path: Path) -> None:
        data = load_dataset(
            write(
                tmp_path,
                items_csv=self.ITEMS,
                interactions_csv="user_id,item_id\nu1,i1\nu1,i2\n",
                users_csv=",user_id,age\n0,u1,34\n",
            )
        )
        assert data.metadata == {"u1": {"age": "34"}}
        assert any("one without a name" in note for note in data.notes)

    def test_semicolons_separate_too(self, tmp_path: Path) -> None:
        write(tmp_path, items_csv=self.ITEMS, interactions_csv="user_id;item_id\nu1;i1\n")
        assert [event.item_id for event in load_dataset(tmp_path).sequences["u1"]] == ["i1"]


def test_movielens_saved_again_in_utf8_and_as_published(tmp_path: Path) -> None:
    for encoding in ("utf-8", "latin-1"):
        folder = tmp_path / encoding
        write(folder, ratings_dat="1::1::5::978300001\n1::2::5::978300002\n", users_dat="1::F::25::4::12345\n")
        movies = "1::Tité über 1 (1995)::Drama|Comedy\n2::Plain (1995)::Drama\n"
        (folder / "movies.dat").write_text(movies, encoding)
        assert load_dataset(folder).items["1"].title == "Tité über 1 (1995)"


def test_one_user_with_every_item_does_not_decide_for_all() -> None:
    rows = [(f"u{u}", f"i{(3 * u + n) % 20}", n) for u in range(8) for n in range(4)] + [
        ("all", f"i{n}", n) for n in range(20)
    ]
    data = m3.Dataset.from_frames(pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]))
    cases = m3.draw_cases(data, part="all", negatives=9)
    assert len(cases) == 8 and "all" not in {case.user_id for case in cases}
    assert users_short_of_items(data, cases.protocol) == ["all"]
    with pytest.raises(InputError, match="at most 16 negatives"):
        m3.draw_cases(data, part="all", negatives=17)
