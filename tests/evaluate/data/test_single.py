"""One file of interactions, with the columns of its items or without; separators, other names of columns."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from programs.runtime.errors import InputError
from tests.support.files import bought, fails, jsonl, write

ALONE = "user_id,item_id,rating,timestamp\nu,b,4,20\nu,a,5,10\nv,a,3,30\n"
SALES = (
    "customer_id;sku;date;name;category;price;basket\n"
    "u;b;2024-01-02;Ball;Toys > Balls;3;x\nu;a;2024-01-01;Kite;Toys > Kites;9;x\n"
    "v;a;2024-01-03;Kite;Toys > Kites;7;y\n"
)


def test_interactions_alone(tmp_path: Path) -> None:
    dataset = load_dataset(write(tmp_path / "clicks.csv", ALONE))
    assert (dataset.name, dataset.format) == ("clicks", "single-file")
    assert bought(dataset, "u") == ["a", "b"]
    assert dataset.items["a"].title == "a"
    assert any("item ids stand in for them" in note for note in dataset.notes)
    assert load_dataset(dataset.source).sha256 == dataset.sha256


@pytest.mark.parametrize("source", ["sales.csv", "."])
def test_items_in_the_same_rows(tmp_path: Path, source: str) -> None:
    path = write(tmp_path / ("interactions.csv" if source == "." else source), SALES)
    dataset = load_dataset(path if source != "." else tmp_path)
    assert bought(dataset, "u") == ["a", "b"]
    assert (dataset.items["a"].title, dataset.items["a"].categories) == ("Kite", (("Toys", "Kites"),))
    assert dataset.items["a"].price is None
    notes = "\n".join(dataset.notes)
    assert "rows of one item differ in them: price" in notes and "not used: basket" in notes
    assert "sku as item_id" in notes and "name as title" in notes


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".csv.gz", ".tsv.gz"])
def test_separators(tmp_path: Path, mark: str, suffix: str) -> None:
    dataset = load_dataset(write(tmp_path / f"clicks{suffix}", ALONE.replace(",", mark)))
    assert bought(dataset, "u") == ["a", "b"]


def test_a_separator_within_quotes(tmp_path: Path) -> None:
    write(tmp_path / "interactions.csv", "user_id;item_id\nu;a\nu;b\n")
    write(tmp_path / "items.csv", 'item_id;title\na;"Kite; red, large"\nb;Ball, blue\n')
    dataset = load_dataset(tmp_path)
    assert [dataset.items[item].title for item in "ab"] == ["Kite; red, large", "Ball, blue"]
    write(tmp_path / "items.csv", "item_id;title\na;Kite;red\n")
    fails(tmp_path, "items.csv, line 2: 3 fields where the header has 2; quote fields that contain the separator")


def test_the_text_of_a_review_is_not_that_of_its_item(tmp_path: Path) -> None:
    row = {"parent_asin": "B1", "user_id": "u", "rating": 5.0, "timestamp": 1530924496000, "helpful_vote": 0}
    path = write(tmp_path / "reviews.jsonl", jsonl([row | {"title": "I love this kite"}]))
    dataset = load_dataset(path)
    assert dataset.items["B1"].title == "B1"
    assert any("holds reviews (helpful_vote)" in note for note in dataset.notes)
    rows = [{"user": f"u{n}", "item": f"i{n % 3}", "text": f"opinion {n}"} for n in range(9)]
    dataset = load_dataset(write(tmp_path / "opinions.jsonl", jsonl(rows)))
    assert dataset.items["i0"].description == ""
    assert any("differ in them: description" in note for note in dataset.notes)


def test_some_items_without_a_text_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "sales.csv", "user,item,title\nu,a,\nu,b,Ball\nv,a,Kite\n")
    assert load_dataset(path).items["a"].title == "Kite"
    path = write(tmp_path / "sales.csv", "user,item,title\nu,a,Kite\nu,b,\n")
    fails(path, "sales.csv, line 3: item 'b' has no text (items without one: 1 of 2)")


def test_a_file_of_a_dataset_stands_for_the_dataset(tmp_path: Path) -> None:
    write(tmp_path / "items.csv", "item_id,title\na,Kite\nb,Ball\n")
    path = write(tmp_path / "interactions.csv", ALONE)
    assert load_dataset(path).items["a"].title == "Kite"
    atomic = write(tmp_path / "ml" / "ml.inter", "user_id:token\titem_id:token\nu\ta\n")
    assert load_dataset(atomic).items["a"].title == "a"
    write(tmp_path / "ml" / "ml.item", "item_id:token\ttitle:token_seq\na\tToy Story\n")
    assert load_dataset(atomic).items["a"].title == "Toy Story"


COLUMNS = {"user_id": "who", "item_id": "what", "timestamp": "moment"}


def named(folder: Path) -> Dataset:
    write(folder / "interactions.csv", "who,what,moment,odd\nu,b,1530924497,1\nu,a,1530924496,2\n")
    write(folder / "items.csv", "what,title\na,Kite\nb,Ball\n")
    return load_dataset(folder, COLUMNS)


def test_given_names_of_columns(tmp_path: Path) -> None:
    dataset = named(tmp_path)
    assert bought(dataset, "u") == ["a", "b"]
    assert dict(dataset.columns) == COLUMNS
    assert "Fields of interactions.csv that are not used: odd." in dataset.notes
    single = load_dataset(write(tmp_path / "alone.csv", "who,what,moment\nu,b,2\nu,a,1\n"), COLUMNS)
    assert bought(single, "u") == ["a", "b"]
    write(tmp_path / "ml.inter", "who:token\twhat:token\tmoment:float\nu\tb\t2\nu\ta\t1\n")
    assert bought(load_dataset(tmp_path / "ml.inter", COLUMNS), "u") == ["a", "b"]


def test_given_names_that_do_not_fit(tmp_path: Path) -> None:
    named(tmp_path)
    for columns, parts in [
        ({"user": "who"}, ["columns: 'user' is not one of our columns: user_id"]),
        (COLUMNS | {"rating": "stars_given"}, ["no file has a column 'stars_given' to read as rating", "odd"]),
        ({"user_id": "who"}, ["missing column item_id; it has what, title", "--columns item_id=YOURS"]),
    ]:
        with pytest.raises(InputError) as refused:
            load_dataset(tmp_path, columns)
        assert all(part in str(refused.value) for part in parts), str(refused.value)
    with pytest.raises(InputError, match="the demo store has none to name"):
        load_dataset("demo", COLUMNS)


@pytest.mark.parametrize("name", ["interactions.csv", "interactions.parquet"])
def test_rectools_frames(tmp_path: Path, name: str) -> None:
    frame = pd.DataFrame(
        {"user_id": [1, 1], "item_id": [7, 8], "weight": [4.0, 2.0], "datetime": ["2024-05-02", "2024-05-01"]}
    )
    frame["datetime"] = pd.to_datetime(frame["datetime"])
    path = tmp_path / name
    frame.to_parquet(path) if path.suffix == ".parquet" else frame.to_csv(path, index=False)
    write(tmp_path / "items.csv", "item_id,title,genres\n7,Heat,Crime\n8,Alien,Horror\n")
    dataset = load_dataset(tmp_path)
    assert bought(dataset, "1") == ["8", "7"]
    assert dataset.interactions["rating"].isna().all()
    assert any("read it with --columns rating=weight" in note for note in dataset.notes)
    rated = load_dataset(tmp_path, {"rating": "weight"})
    assert [event.rating for event in rated.sequences["1"]] == [2.0, 4.0]
    assert not any("weight as rating" not in note and "weight" in note for note in rated.notes)
