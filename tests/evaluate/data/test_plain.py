"""Datasets in the plain form: values that come out, and errors that name file, line and field."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from evaluate.data.records import reading
from evaluate.data.records.interactions import INTERACTION_COLUMNS
from programs.runtime.errors import InputError
from tests.support.files import Rows, bought, fails, jsonl, write

ITEMS: Rows = [
    {
        "item_id": "a",
        "title": "Red  kite",
        "categories": [["Toys", "Kites"], ["Gifts"]],
        "brand": "Zephyr",
        "price": 9.5,
    },
    {"item_id": "b", "description": ["Two", "parts"], "sales_rank": 4},
    {"item_id": "c", "keywords": "ball blue"},
]
INTERACTIONS: Rows = [
    {"user_id": "v", "item_id": "a", "rating": 5, "timestamp": 30},
    {"user_id": "u", "item_id": "b", "rating": 3.5, "timestamp": 20},
    {"user_id": "u", "item_id": "c", "rating": None, "timestamp": 20},
    {"user_id": "u", "item_id": "a", "rating": 1, "timestamp": 10},
]


def plain(directory: Path, interactions: Rows = INTERACTIONS, items: Rows = ITEMS) -> Path:
    write(directory / "interactions.jsonl", jsonl(interactions))
    write(directory / "items.jsonl.gz", jsonl(items))
    return directory


def test_plain_values(tmp_path: Path) -> None:
    dataset = load_dataset(plain(tmp_path / "shop"))
    assert (dataset.name, dataset.format) == ("shop", "plain")
    assert dataset.items["a"].title == "Red kite"
    assert dataset.items["a"].categories == (("Toys", "Kites"), ("Gifts",))
    assert (dataset.items["a"].brand, dataset.items["a"].price) == ("Zephyr", 9.5)
    assert dataset.items["b"].description == "Two parts"
    assert dataset.items["c"].keywords == "ball blue"
    assert tuple(dataset.interactions.columns) == INTERACTION_COLUMNS
    assert str(dataset.interactions["timestamp"].dtype) == "Int64"
    assert bought(dataset, "u") == ["a", "b", "c"]
    assert [i.rating for i in dataset.sequences["u"]] == [1.0, 3.5, None]
    assert [i.timestamp for i in dataset.sequences["u"]] == [10, 20, 20]
    assert dataset.interactions["position"].tolist() == [0, 1, 2, 0]
    assert dataset.notes == (
        "Order of a user's interactions: timestamp, then order in the file.",
        "Interactions without a rating: 1 of 4.",
    )


def test_positions_come_before_timestamps_and_times_before_the_file(tmp_path: Path) -> None:
    positions = [{**row, "position": 10 - n} for n, row in enumerate(INTERACTIONS)]
    assert bought(load_dataset(plain(tmp_path / "1", positions)), "u") == ["a", "c", "b"]
    bare = [{"user_id": row["user_id"], "item_id": row["item_id"]} for row in INTERACTIONS]
    dataset = load_dataset(plain(tmp_path / "2", bare))
    assert bought(dataset, "u") == ["b", "c", "a"]
    assert dataset.interactions["timestamp"].isna().all()


def test_a_second_purchase_of_an_item_is_dropped_and_counted(tmp_path: Path) -> None:
    again = [*INTERACTIONS, {"user_id": "u", "item_id": "a", "rating": 5, "timestamp": 99}]
    dataset = load_dataset(plain(tmp_path, again))
    first = dataset.sequences["u"][0]
    assert (first.item_id, first.rating) == ("a", 1.0)
    assert dataset.interactions["position"].tolist() == [0, 1, 2, 0]
    assert any("first one kept: 1 dropped" in note for note in dataset.notes)


def test_a_misspelt_item_field_is_noted(tmp_path: Path) -> None:
    dataset = load_dataset(plain(tmp_path, items=[*ITEMS, {"item_id": "d", "title": "x", "colour": "red"}]))
    assert "Fields of items.jsonl.gz that are not used: colour." in dataset.notes


def test_the_same_data_in_every_file_format_has_the_same_hash(tmp_path: Path) -> None:
    expected = load_dataset(plain(tmp_path / "jsonl")).sha256
    flat = [
        {"item_id": "a", "title": "Red kite", "categories": "Toys > Kites|Gifts", "brand": "Zephyr", "price": 9.5},
        {"item_id": "b", "description": "Two parts"},
        {"item_id": "c", "keywords": "ball blue"},
    ]
    for name in ("csv", "csv.gz", "parquet"):
        directory = tmp_path / name
        directory.mkdir()
        for stem, rows in (("interactions", INTERACTIONS), ("items", flat if name != "parquet" else ITEMS)):
            frame = pd.DataFrame(rows)
            path = directory / f"{stem}.{name}"
            frame.to_parquet(path) if name == "parquet" else frame.to_csv(path, index=False)
        assert load_dataset(directory).sha256 == expected, name


@pytest.mark.parametrize("name", ["users.csv", "users.jsonl", "users.parquet"])
def test_user_metadata(tmp_path: Path, name: str) -> None:
    plain(tmp_path)
    rows = [{"user_id": "u", "age": 34.0, "region": "Wales"}, {"user_id": "v", "age": None, "region": None}]
    frame = pd.DataFrame([*rows, {"user_id": "w", "age": 20.0, "region": None}])
    if name.endswith("parquet"):
        frame.to_parquet(tmp_path / name)
    else:
        write(tmp_path / name, jsonl([*rows, {"user_id": "w", "age": 20}]))
    if name.endswith("csv"):
        write(tmp_path / name, "user_id,age,region\nu,34,Wales\nv,,\nw,20,\n")
    dataset = load_dataset(tmp_path)
    assert dataset.metadata == {"u": {"age": "34", "region": "Wales"}, "w": {"age": "20"}}
    assert "Users with metadata and without any interaction: 1." in dataset.notes
    assert dataset.describe()["users with metadata"] == f"{1 / len(dataset.sequences):.2%}"


PLAIN_ERRORS: list[tuple[str, str, list[str]]] = [
    ("items.jsonl", '{"item_id": "a", "title": "x"}\n{"item_id"', ["items.jsonl, line 2", "not JSON"]),
    ("items.jsonl", "[1]\n", ["items.jsonl, line 1", "not an object but list"]),
    ("items.jsonl", "[" * 100_000, ["items.jsonl, line 1", "not JSON"]),
    ("items.jsonl", '\n{"title": "x"}\n', ["items.jsonl, line 2", "'item_id' is missing"]),
    ("items.jsonl", '{"item_id": 1.5, "title": "x"}', ["items.jsonl, line 1", "'item_id': 1.5 is not an id"]),
    ("items.jsonl", '{"item_id": "\\ud800", "title": "x"}', ["line 1", "'item_id'", "not valid Unicode"]),
    ("items.jsonl", '{"item_id": "a", "brand": "B", "title": " "}', ["line 1", "item 'a' has no text", "title"]),
    ("items.jsonl", '{"item_id": "a", "title": {"x": 1}}', ["line 1", "'title'", "dict is not a text"]),
    ("items.jsonl", '{"item_id": "a", "categories": 3}', ["line 1", "'categories'", "int is not a list of categories"]),
    ("items.jsonl", '{"item_id": "a", "categories": [["x", 1]]}', ["line 1", "'categories'", "not a category path"]),
    ("items.jsonl", '{"item_id": "a", "title": "x", "price": "cheap"}', ["line 1", "'price': 'cheap' is not a number"]),
    ("items.jsonl", '{"item_id": "a", "title": "x", "price": -1}', ["line 1", "'price': -1 is negative"]),
    ("items.jsonl", '{"item_id": "a", "title": "x"}\n' * 2, ["items.jsonl, line 2", "id 'a'", "on line 1", "keep one"]),
    ("items.jsonl", "", ["items.jsonl: the file is empty"]),
    ("items.csv", "id,title\na,x\n", ["items.csv: missing column item_id", "it has id, title"]),
    ("items.csv", "item_id,title,title\na,x,y\n", ["items.csv", "title exists twice"]),
    ("items.csv", "item_id,title\n", ["items.csv", "no rows"]),
    ("items.csv", 'item_id,title\na,"two\nlines"\nb,x,y\n', ["items.csv, line 4: 3 fields where the header has 2"]),
    ("items.csv", 'item_id,title\na,"open\n', ["items.csv, line 2: not CSV"]),
    ("items.parquet", "no parquet", ["items.parquet", "not a readable Parquet file"]),
    ("interactions.jsonl", '{"user_id": "u"}', ["interactions.jsonl, line 1", "'item_id' is missing"]),
    ("interactions.jsonl", '{"user_id": " ", "item_id": "a"}', ["line 1", "'user_id' is missing"]),
    ("interactions.jsonl", '{"user_id": "u", "item_id": "a", "rating": 6}', ["line 1", "'rating': 6", "0 and 5"]),
    ("interactions.jsonl", '{"user_id": "u", "item_id": "a", "rating": -0.5}', ["line 1", "'rating': -0.5", "0 and 5"]),
    ("interactions.jsonl", '{"user_id": "u", "item_id": "a", "rating": "ok"}', ["line 1", "'rating'", "not a number"]),
    ("interactions.jsonl", '{"user_id": "u", "item_id": "a", "rating": true}', ["line 1", "'rating'", "not a number"]),
    ("interactions.jsonl", '{"user_id": "u", "item_id": "a", "rating": Infinity}', ["line 1", "not a number"]),
    (
        "interactions.jsonl",
        '{"user_id": "u", "item_id": "a", "timestamp": 1356220800000000}',
        ["line 1", "milliseconds"],
    ),
    ("interactions.csv", "user_id,rating\nu,5\n", ["interactions.csv: missing column item_id"]),
    ("interactions.csv", "user_id,item_id\nu,a\nu,zz\nv,zz\n", ["line 3: item 'zz' is not in items", "items: 2)"]),
    (
        "interactions.csv",
        "user_id,item_id,timestamp\nu,a,1\nu,b,\n",
        ["interactions.csv, line 3: field 'timestamp' is missing here", "everywhere or nowhere"],
    ),
    ("interactions.csv", "user_id,item_id,position\nu,a,\nu,b,1\n", ["interactions.csv, line 2: field 'position'"]),
    ("users.csv", "user_id,age\nu,1\nu,2\n", ["users.csv, line 3: id 'u' was already given on line 2"]),
    ("users.jsonl", '{"age": 3}', ["users.jsonl, line 1", "'user_id' is missing"]),
    ("users.jsonl", '{"user_id": "u", "pets": {"cat": 1}}', ["users.jsonl, line 1", "'pets'", "dict is not a text"]),
]


@pytest.mark.parametrize(("name", "content", "parts"), PLAIN_ERRORS)
def test_plain_errors_name_file_line_and_field(tmp_path: Path, name: str, content: str, parts: list[str]) -> None:
    files = {"interactions": ("interactions.jsonl", jsonl(INTERACTIONS)), "items": ("items.jsonl", jsonl(ITEMS))}
    for file, text in {**files, name.split(".")[0]: (name, content)}.values():
        write(tmp_path / file, text)
    fails(tmp_path, *parts)


LONG = "x" * 5000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("items.jsonl", '{"item_id": "a", "title": "x", "price": "' + LONG + '"}'),
        ("items.jsonl", '{"item_id": {"' + LONG + '": 1}, "title": "x"}'),
        ("items.jsonl", '{"item_id": ' + "7" * 4000 + "}"),
        ("items.jsonl", '{"item_id": ' + "7" * 5000 + "}"),
        ("items.jsonl", '{"item_id": "a", "title": "x", "price": ' + "7" * 4000 + "}"),
        ("items.jsonl", '{"item_id": "a", "categories": [["' + LONG + '", 1]]}'),
        ("items.jsonl", f'{{"item_id": "{LONG}"}}'),
        ("items.jsonl", f'{{"item_id": "{LONG}", "title": "x"}}\n' * 2),
        ("items.csv", f"{LONG},title\na,x\n"),
        ("items.csv", "".join(f"c{n}," for n in range(5000)) + "\n"),
        ("items.csv", f"item_id,{LONG},{LONG}\na,x,y\n"),
        ("interactions.csv", f"user_id,item_id\nu,{LONG}\n"),
        ("interactions.jsonl", f'{{"user_id": "u", "item_id": "a", "timestamp": "{LONG}"}}'),
        ("interactions.jsonl", f'{{"user_id": "u", "item_id": "a", "rating": "{LONG}"}}'),
    ],
)
def test_a_refusal_quotes_no_more_than_200_characters(tmp_path: Path, name: str, content: str) -> None:
    files = {"interactions": ("interactions.jsonl", jsonl(INTERACTIONS)), "items": ("items.jsonl", jsonl(ITEMS))}
    for file, text in {**files, name.split(".")[0]: (name, content)}.values():
        write(tmp_path / file, text)
    with pytest.raises(InputError) as refused:
        load_dataset(tmp_path)
    said = str(refused.value).replace(str(tmp_path), "")
    assert name in said
    assert len(said) < 450


def test_names_of_columns_and_files_that_others_use(tmp_path: Path) -> None:
    movies = "movieId,title,genres\n1,Toy Story (1995),Animation|Comedy\n2,Heat (1995),(no genres listed)\n"
    write(tmp_path / "lens" / "movies.csv", movies)
    write(tmp_path / "lens" / "ratings.csv", "userId,movieId,rating,timestamp\n1,2,4.0,20\n1,1,3.5,10\n")
    lens = load_dataset(tmp_path / "lens")
    assert bought(lens, "1") == ["1", "2"]
    assert lens.items["1"].categories == (("Animation",), ("Comedy",))
    assert lens.items["2"].categories == ()
    write(tmp_path / "amazon" / "items.csv", "asin,title,cat\nB1,Kite,Toys > Kites\nB2,Ball,Toys\n")
    reviews = "reviewerID,asin,overall,unixReviewTime\nA1,B2,5.0,20\nA1,B1,4.0,10\n"
    write(tmp_path / "amazon" / "interactions.csv", reviews)
    amazon = load_dataset(tmp_path / "amazon")
    assert bought(amazon, "A1") == ["B1", "B2"]
    assert amazon.items["B1"].categories == (("Toys", "Kites"),)
    write(tmp_path / "short" / "items.csv", "item,title\na,Kite\nb,Ball\n")
    write(tmp_path / "short" / "ratings.csv", "user,item\nu,b\nu,a\n")
    assert bought(load_dataset(tmp_path / "short"), "u") == ["b", "a"]


def test_all_missing_columns_are_named_at_once(tmp_path: Path) -> None:
    write(tmp_path / "items.csv", "code,title\na,Kite\n")
    write(tmp_path / "interactions.csv", "who:what\nu:a\n")
    write(tmp_path / "users.csv", "id,age\nu,3\n")
    fails(
        tmp_path,
        "items.csv: missing column item_id; it has code, title; name yours with --columns item_id=YOURS",
        "also understood: item, itemid",
        "interactions.csv: missing column user_id, item_id; it has who:what",
        "--columns user_id=YOURS,item_id=YOURS",
        "users.csv: missing column user_id",
    )


@pytest.mark.parametrize(
    "written",
    [
        "2018-07-07 00:48:16",
        "2018-07-07T00:48:16Z",
        "2018-07-07T02:48:16+02:00",
        1530924496,
        "1530924496.0",
        1530924496000,
    ],
)
def test_moments_in_every_usual_form(tmp_path: Path, written: object) -> None:
    rows = [{**INTERACTIONS[0], "timestamp": written}]
    (moment,) = (event.timestamp for event in load_dataset(plain(tmp_path, rows)).sequences["v"])
    assert moment == 1530924496


def test_dates_of_a_parquet_file(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "interactions.jsonl").unlink()
    frame = pd.DataFrame({"user_id": ["u", "u"], "item_id": ["a", "b"], "date": ["2018-07-07 00:48:16", "2018-07-06"]})
    frame["date"] = pd.to_datetime(frame["date"], format="ISO8601")
    frame.to_parquet(tmp_path / "interactions.parquet")
    dataset = load_dataset(tmp_path)
    assert bought(dataset, "u") == ["b", "a"]
    assert dataset.sequences["u"][1].timestamp == 1530924496


@pytest.mark.parametrize("unit", ["ns", "us", "ms"])
def test_dates_of_a_frame_are_in_order_within_a_second(unit: str) -> None:
    times = pd.to_datetime(["2018-07-07 00:48:16.900", "2018-07-07 00:48:16.100"]).as_unit(unit)
    frame = pd.DataFrame({"user_id": ["u", "u"], "item_id": ["late", "early"], "timestamp": times})
    assert bought(Dataset.from_frames(frame, None, name="shop"), "u") == ["early", "late"]


def test_a_date_in_no_known_form_says_which_are(tmp_path: Path) -> None:
    rows = [{**INTERACTIONS[0], "timestamp": "07/07/2018"}]
    fails(plain(tmp_path, rows), "line 1", "'timestamp': '07/07/2018' is not a number and not a date", "2018-07-07 00:")


def test_a_line_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LONGEST_LINE", 150)
    fails(plain(tmp_path, items=[*ITEMS, {"item_id": "d", "title": "x" * 200}]), "items.jsonl.gz, line 4: longer than")


def test_parquet_errors_name_rows_and_columns(tmp_path: Path) -> None:
    plain(tmp_path)
    (tmp_path / "interactions.jsonl").unlink()
    path = tmp_path / "interactions.parquet"
    pd.DataFrame({"user_id": ["u", "u"], "item_id": ["a", None]}).to_parquet(path)
    fails(tmp_path, "interactions.parquet, row 2: field 'item_id' is missing")
    pd.DataFrame({"user_id": ["u"]}).to_parquet(path)
    fails(tmp_path, "interactions.parquet: missing column item_id; it has user_id")
    pd.DataFrame({"user_id": [], "item_id": []}).to_parquet(path)
    fails(tmp_path, "interactions.parquet: the file has no rows")


ids = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=4).filter(str.strip)
interactions = st.lists(
    st.fixed_dictionaries(
        {
            "user_id": ids,
            "item_id": st.sampled_from(["a", "b", "c"]),
            "rating": st.none() | st.floats(0, 5),
            "timestamp": st.integers(0, 20),
        }
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=40, deadline=None)
@given(interactions)
def test_any_interactions_come_out_ordered_unique_and_alike_from_csv_and_jsonl(rows: Rows) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = plain(Path(folder), rows)
        dataset = load_dataset(directory)
        (directory / "interactions.jsonl").unlink()
        with (directory / "interactions.csv").open("w", newline="", encoding="utf-8") as stream:
            writer = csv.DictWriter(stream, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        assert load_dataset(directory).sha256 == dataset.sha256
    assert set(zip(dataset.interactions["user_id"], dataset.interactions["item_id"], strict=True)) == {
        (row["user_id"], row["item_id"]) for row in rows
    }
    assert not dataset.interactions.duplicated(["user_id", "item_id"]).any()
    for user, frame in dataset.interactions.groupby("user_id"):
        assert frame["position"].tolist() == list(range(len(frame)))
        assert frame["timestamp"].is_monotonic_increasing
        first = min((row for row in rows if row["user_id"] == user), key=lambda row: row["timestamp"])
        assert frame["item_id"].iloc[0] == first["item_id"]
