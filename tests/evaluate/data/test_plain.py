"""Every dataset format from tiny files written here: the values that come out, and the errors that should."""

from __future__ import annotations

import csv
import gzip
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from evaluate.data.records.interactions import INTERACTION_COLUMNS
from evaluate.data.records.reading import read_lines
from programs.runtime.errors import InputError

Rows = Sequence[dict[str, Any]]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A text file, compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def jsonl(rows: Rows) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def fails(source: Path, *parts: str) -> None:
    """Loading raises an InputError whose message has all of `parts`."""
    with pytest.raises(InputError) as caught:
        load_dataset(source)
    for part in parts:
        assert part in str(caught.value)


def order(dataset: Dataset, user: str) -> list[str]:
    return [interaction.item_id for interaction in dataset.sequences[user]]


# Lines


def test_lines_of_plain_and_compressed_files_agree(tmp_path: Path) -> None:
    text = "\ufefffirst\r\nzweite Zeile: ü\n\nlast"
    expected = [(1, "first"), (2, "zweite Zeile: ü"), (3, ""), (4, "last")]
    assert list(read_lines(write(tmp_path / "a.txt", text))) == expected
    assert list(read_lines(write(tmp_path / "a.txt.gz", text))) == expected


def truncated(path: Path) -> None:
    path.write_bytes(gzip.compress("\n".join(map(str, range(9999))).encode())[:-20])


def damaged(path: Path) -> None:
    data = bytearray(gzip.compress(bytes(range(32, 127)) * 50))
    data[15] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("name", "spoil", "parts"),
    [
        ("a.gz", lambda path: path.write_bytes(b"plain text"), ["a.gz", "not a gzip file"]),
        ("a.gz", truncated, ["a.gz", "truncated or damaged after line", "download it again"]),
        ("a.gz", damaged, ["a.gz", "damaged"]),
        ("a.gz", lambda path: path.write_bytes(gzip.compress(b"")), ["a.gz", "empty"]),
        ("a.txt", lambda path: path.write_bytes(b""), ["a.txt", "empty"]),
        ("a.txt", lambda path: path.write_bytes(b"\n  \n"), ["a.txt", "empty"]),
        ("a.txt", lambda path: path.write_bytes(b"good\nb\xff"), ["a.txt, line 2: byte 2 is not utf-8"]),
        ("a.txt", lambda path: path.mkdir(), ["a.txt: cannot be read"]),
        ("a.txt", lambda path: None, ["a.txt: cannot be read: No such file"]),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, spoil: Callable[[Path], object], parts: list[str]) -> None:
    spoil(tmp_path / name)
    with pytest.raises(InputError) as caught:
        list(read_lines(tmp_path / name))
    assert all(part in str(caught.value) for part in parts), caught.value


# Recognizing


def test_unknown_directories_say_what_was_looked_for(tmp_path: Path) -> None:
    fails(tmp_path / "nowhere", "nowhere: no such directory", "interactions and items", "meta_X.json", "u.data", "demo")
    fails(tmp_path, "but nothing", "looked for", "ratings.dat")
    write(tmp_path / "interactions.csv", "user_id,item_id\nu,a\n")
    fails(tmp_path, "but interactions.csv", "interactions and items")
    fails(tmp_path / "interactions.csv", "not a directory")


def test_the_same_file_twice_is_not_guessed_at(tmp_path: Path) -> None:
    write(tmp_path / "items.jsonl", "{}")
    write(tmp_path / "interactions.csv", "x")
    write(tmp_path / "interactions.jsonl.gz", "x")
    fails(tmp_path, "interactions.csv and interactions.jsonl.gz", "keep one")


def test_demo_is_built_in() -> None:
    assert len(load_dataset("demo").items) > 0


# Plain

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
    assert order(dataset, "u") == ["a", "b", "c"]
    assert [i.rating for i in dataset.sequences["u"]] == [1.0, 3.5, None]
    assert [i.timestamp for i in dataset.sequences["u"]] == [10, 20, 20]
    assert dataset.interactions["position"].tolist() == [0, 1, 2, 0]
    assert dataset.notes == (
        "Order of a user's interactions: timestamp, then order in the file.",
        "Interactions without a rating: 1 of 4.",
    )


def test_positions_come_before_timestamps_and_times_before_the_file(tmp_path: Path) -> None:
    positions = [{**row, "position": 10 - n} for n, row in enumerate(INTERACTIONS)]
    assert order(load_dataset(plain(tmp_path / "1", positions)), "u") == ["a", "c", "b"]
    bare = [{"user_id": row["user_id"], "item_id": row["item_id"]} for row in INTERACTIONS]
    dataset = load_dataset(plain(tmp_path / "2", bare))
    assert order(dataset, "u") == ["b", "c", "a"]
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


PLAIN_ERRORS: list[tuple[str, str, list[str]]] = [
    ("items.jsonl", '{"item_id": "a", "title": "x"}\n{"item_id"', ["items.jsonl, line 2", "not JSON"]),
    ("items.jsonl", "[1]\n", ["items.jsonl, line 1", "not an object but list"]),
    ("items.jsonl", "[" * 100_000, ["items.jsonl, line 1", "not JSON"]),
    ("items.jsonl", '\n{"title": "x"}\n', ["items.jsonl, line 2", "'item_id' is missing"]),
    ("items.jsonl", '{"item_id": 1.5, "title": "x"}', ["items.jsonl, line 1", "'item_id': 1.5 is no id"]),
    ("items.jsonl", '{"item_id": "\\ud800", "title": "x"}', ["line 1", "'item_id'", "not valid Unicode"]),
    ("items.jsonl", '{"item_id": "a", "brand": "B", "title": " "}', ["line 1", "item 'a' has no text", "title"]),
    ("items.jsonl", '{"item_id": "a", "title": {"x": 1}}', ["line 1", "'title'", "dict is no text"]),
    ("items.jsonl", '{"item_id": "a", "categories": 3}', ["line 1", "'categories'", "int holds no categories"]),
    ("items.jsonl", '{"item_id": "a", "categories": [["x", 1]]}', ["line 1", "'categories'", "no category path"]),
    ("items.jsonl", '{"item_id": "a", "title": "x", "price": "cheap"}', ["line 1", "'price': 'cheap' is not a number"]),
    ("items.jsonl", '{"item_id": "a", "title": "x", "price": -1}', ["line 1", "'price': -1 is negative"]),
    ("items.jsonl", '{"item_id": "a", "title": "x"}\n' * 2, ["items.jsonl, line 2", "id 'a'", "on line 1", "keep one"]),
    ("items.jsonl", "", ["items.jsonl: the file is empty"]),
    ("items.csv", "id,title\na,x\n", ["items.csv: missing column item_id", "it has id, title"]),
    ("items.csv", "item_id,title,title\na,x,y\n", ["items.csv", "title is there twice"]),
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
    ("interactions.jsonl", '{"user_id": "u", "item_id": "a", "timestamp": 1356220800000}', ["line 1", "milliseconds"]),
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
    ("users.jsonl", '{"user_id": "u", "pets": {"cat": 1}}', ["users.jsonl, line 1", "'pets'", "dict is no text"]),
]


@pytest.mark.parametrize(("name", "content", "parts"), PLAIN_ERRORS)
def test_plain_errors_name_file_line_and_field(tmp_path: Path, name: str, content: str, parts: list[str]) -> None:
    files = {"interactions": ("interactions.jsonl", jsonl(INTERACTIONS)), "items": ("items.jsonl", jsonl(ITEMS))}
    for file, text in {**files, name.split(".")[0]: (name, content)}.values():
        write(tmp_path / file, text)
    fails(tmp_path, *parts)


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


# Amazon


def review(user: str = "U1", asin: str = "B1", overall: float = 5.0, time: int = 1000) -> dict[str, Any]:
    return {"reviewerID": user, "asin": asin, "overall": overall, "unixReviewTime": time, "reviewText": "ok\u2028"}


META_2014 = [
    {
        "asin": "B1",
        "title": "Baby&#39;s &amp; toddler's kite",
        "price": 9.99,
        "brand": "Z",
        "categories": [["Toys", "Kites"]],
    },
    {"asin": "B2", "imUrl": "x", "description": "Blue\n ball", "categories": [["Toys"]]},
    {"asin": "B3", "price": 3.0},
    {"asin": "B9", "title": "Never reviewed"},
]


def amazon_2014(directory: Path, reviews: Rows, meta: str | None = None, suffix: str = ".gz") -> Path:
    write(directory / f"reviews_Toys_5.json{suffix}", jsonl(reviews))
    write(directory / f"meta_Toys.json{suffix}", "".join(f"{row!r}\n" for row in META_2014) if meta is None else meta)
    return directory


@pytest.mark.parametrize("suffix", [".gz", ""])
def test_amazon_2014(tmp_path: Path, suffix: str) -> None:
    reviews = [review(time=2000), review(asin="B2", overall=2.0), review("U2", "B3"), review("U2", "B4")]
    dataset = load_dataset(amazon_2014(tmp_path, [*reviews, review("U2", "B1")], suffix=suffix))
    assert (dataset.name, dataset.format) == ("Toys", "amazon-2014")
    assert set(dataset.items) == {"B1", "B2"}
    kite = dataset.items["B1"]
    assert (kite.title, kite.brand, kite.price) == ("Baby's & toddler's kite", "Z", 9.99)
    assert kite.categories == (("Toys", "Kites"),)
    assert dataset.items["B2"].description == "Blue ball"
    assert order(dataset, "U1") == ["B2", "B1"]
    assert [(i.rating, i.timestamp) for i in dataset.sequences["U1"]] == [(2.0, 1000), (5.0, 2000)]
    assert order(dataset, "U2") == ["B1"]
    assert "Metadata records of items without a review, left out: 1." in dataset.notes
    assert any("no text for their item: 2 (items: 2 of 4)" in note for note in dataset.notes)


def test_amazon_2018(tmp_path: Path) -> None:
    kite = {
        "category": ["Toys &amp; Games", "Kites", "</span></span></span>", "100% nylon"],
        "description": ["A kite.", "", "It flies &gt; 9 m."],
        "title": "Kite",
        "price": "$1,012.99",
        "brand": "Z",
        "asin": "B1",
    }
    script = {"asin": "B2", "title": "var aPageStart = (new Date()).getTime();", "price": ".a-box{color:red}" * 99}
    other = {"asin": "B3", "title": "Ball", "price": "$3.99 - $9.99", "brand": "", "category": [], "description": []}
    meta = [kite, other, kite, {**other, "title": "Balloon"}, script]
    write(tmp_path / "meta_Toys_and_Games.json.gz", jsonl(meta))
    write(tmp_path / "Toys_and_Games_5.json.gz", jsonl([review(), review(asin="B2"), review(asin="B3")]))
    dataset = load_dataset(tmp_path)
    assert (dataset.name, dataset.format) == ("Toys_and_Games", "amazon-2018")
    assert set(dataset.items) == {"B1", "B3"}
    assert dataset.items["B1"].categories == (("Toys & Games", "Kites"),)
    assert dataset.items["B1"].description == "A kite. It flies > 9 m."
    assert dataset.items["B1"].price == 1012.99
    ball = dataset.items["B3"]
    assert (ball.title, ball.price, ball.brand, ball.categories) == ("Ball", None, None, ())
    assert any("first one kept: 2 (with other texts: 1)" in note for note in dataset.notes)


def test_amazon_2023(tmp_path: Path) -> None:
    reviews = [
        {"user_id": "U", "asin": "V2", "parent_asin": "P1", "rating": 4.0, "timestamp": 1_588_687_728_923},
        {"user_id": "U", "asin": "P2", "rating": 5.0, "timestamp": 1_588_687_728_100},
    ]
    meta = [
        {"parent_asin": "P1", "title": "Kite", "categories": ["Toys", "Kites"], "store": "Z", "price": 7.5},
        {"parent_asin": "P2", "title": "Ball", "description": ["Round."], "price": "—", "store": None},
    ]
    write(tmp_path / "Toys.jsonl.gz", jsonl(reviews))
    write(tmp_path / "meta_Toys.jsonl.gz", jsonl(meta))
    dataset = load_dataset(tmp_path)
    assert dataset.format == "amazon-2023"
    # Both fall into the same second; the milliseconds decide.
    assert order(dataset, "U") == ["P2", "P1"]
    assert [i.timestamp for i in dataset.sequences["U"]] == [1_588_687_728] * 2
    kite, ball = dataset.items["P1"], dataset.items["P2"]
    assert (kite.categories, kite.brand, kite.price) == ((("Toys", "Kites"),), "Z", 7.5)
    assert (ball.description, ball.brand, ball.price) == ("Round.", None, None)


@pytest.mark.parametrize("field", ["reviewerID", "asin", "overall", "unixReviewTime"])
def test_amazon_reviews_need_every_field(tmp_path: Path, field: str) -> None:
    lacking = {name: value for name, value in review().items() if name != field}
    fails(amazon_2014(tmp_path, [review(), lacking]), "reviews_Toys_5.json.gz, line 2", f"{field!r} is missing")


@pytest.mark.parametrize(
    ("meta", "parts"),
    [
        ("{'asin': 'B1', 'title': 'x'}\n{'asin': 'B2', 'title'", ["meta_Toys.json.gz, line 2", "nor a Python literal"]),
        ("{'asin': 'B1', 'title': print('x')}", ["line 1", "nor a Python literal"]),
        ("['B1']", ["meta_Toys.json.gz, line 1", "not an object but list"]),
        ("{'title': 'x'}", ["meta_Toys.json.gz, line 1", "'asin' is missing"]),
        ("{'asin': 'B7', 'title': 'x'}", ["meta_Toys.json.gz", "no text for any of the 1 items", "belong together"]),
        ("", ["meta_Toys.json.gz: the file is empty"]),
    ],
)
def test_amazon_metadata_errors(tmp_path: Path, meta: str, parts: list[str]) -> None:
    fails(amazon_2014(tmp_path, [review()], meta), *parts)


def test_amazon_ratings_out_of_range_and_damaged_files(tmp_path: Path) -> None:
    directory = amazon_2014(tmp_path, [review(), review(overall=7)])
    fails(directory, "reviews_Toys_5.json.gz, line 2", "'overall': 7 is not between 0 and 5")
    path = directory / "meta_Toys.json.gz"
    write(directory / "reviews_Toys_5.json.gz", jsonl([review()]))
    path.write_bytes(path.read_bytes()[:-9])
    fails(directory, "meta_Toys.json.gz", "truncated")


def test_amazon_directories_hold_one_category_of_one_release(tmp_path: Path) -> None:
    directory = amazon_2014(tmp_path, [review()])
    write(directory / "reviews_Toys.json.gz", jsonl([review()]))
    fails(directory, "reviews_Toys_5.json.gz and reviews_Toys.json.gz", "keep one")
    (directory / "reviews_Toys.json.gz").unlink()
    write(directory / "Beauty.jsonl", "{}")
    write(directory / "meta_Beauty.jsonl", "{}")
    fails(directory, "Beauty.jsonl (2023) and reviews_Toys_5.json.gz (2014)", "one per directory")


# MovieLens


def movielens_100k(directory: Path) -> Path:
    flags = {"Animation": 3, "Comedy": 5, "unknown": 0}
    animated = "|".join("1" if n in (flags["Animation"], flags["Comedy"]) else "0" for n in range(19))
    unknown = "|".join("1" if n == flags["unknown"] else "0" for n in range(19))
    write(directory / "u.data", "1\t2\t3\t200\n1\t1\t5\t100\n")
    movies = f"1|Café (1995)|01-Jan-1995||http://x|{animated}\n2|unknown||||{unknown}\n"
    write(directory / "u.item", movies, encoding="latin-1")
    write(directory / "u.user", "1|24|M|technician|85711\n")
    return directory


def movielens_1m(directory: Path) -> Path:
    write(directory / "ratings.dat", "7::10::4::300\n7::20::1::100\n")
    write(directory / "movies.dat", "10::Élan: Part II (1999)::Action|Drama\n20::Plain (1950)::War\n", "latin-1")
    write(directory / "users.dat", "7::F::1::10::48067\n")
    return directory


def test_movielens_100k(tmp_path: Path) -> None:
    dataset = load_dataset(movielens_100k(tmp_path))
    assert (dataset.name, dataset.format) == ("ml-100k", "movielens-100k")
    assert dataset.items["1"].title == "Café (1995)"
    assert dataset.items["1"].categories == (("Animation",), ("Comedy",))
    assert dataset.items["2"].categories == ()
    assert order(dataset, "1") == ["1", "2"]
    assert dataset.sequences["1"][0].rating == 5.0
    assert dataset.metadata == {"1": {"age": "24", "gender": "M", "occupation": "technician", "zip": "85711"}}


def test_movielens_1m(tmp_path: Path) -> None:
    dataset = load_dataset(movielens_1m(tmp_path))
    assert (dataset.name, dataset.format) == ("ml-1m", "movielens-1m")
    assert dataset.items["10"].title == "Élan: Part II (1999)"
    assert dataset.items["10"].categories == (("Action",), ("Drama",))
    assert order(dataset, "7") == ["20", "10"]
    assert dataset.metadata == {"7": {"age": "under 18", "gender": "F", "occupation": "K-12 student", "zip": "48067"}}


@pytest.mark.parametrize(
    ("make", "name", "content", "parts"),
    [
        (movielens_100k, "u.data", "1\t1\t5\t1\n1 2 5 1\n", ["u.data, line 2: 1 fields", "expected 4: user_id"]),
        (movielens_100k, "u.data", "1\t1\t9\t1\n", ["u.data, line 1", "'rating': 9 is not between"]),
        (movielens_100k, "u.data", "1\t1\t\t1\n", ["u.data, line 1", "'rating' is missing"]),
        (movielens_100k, "u.data", "1\t8\t5\t1\n", ["u.data, line 1: item '8' is not in u.item"]),
        (
            movielens_100k,
            "u.item",
            "1|A||||" + "|".join("x" * 19),
            ["u.item, line 1", "'Action': 'x' is no genre flag"],
        ),
        (movielens_1m, "movies.dat", "10::A::War\n10::B::War\n", ["movies.dat, line 2: id '10'", "on line 1"]),
        (movielens_1m, "movies.dat", "10::::\n", ["movies.dat, line 1", "neither title nor genre"]),
        (
            movielens_1m,
            "users.dat",
            "7::F::2::10::1\n",
            ["users.dat, line 1", "'age': '2' is not among the codes 1, 18"],
        ),
        (movielens_1m, "users.dat", "", ["users.dat: the file is empty"]),
    ],
)
def test_movielens_errors(
    tmp_path: Path, make: Callable[[Path], Path], name: str, content: str, parts: list[str]
) -> None:
    write(make(tmp_path) / name, content)
    fails(tmp_path, *parts)
