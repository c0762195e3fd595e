"""Amazon reviews of 2014, 2018 and 2023."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from evaluate.data.load import load_dataset
from tests.support.files import Rows, bought, fails, jsonl, write


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
    assert bought(dataset, "U1") == ["B2", "B1"]
    assert [(i.rating, i.timestamp) for i in dataset.sequences["U1"]] == [(2.0, 1000), (5.0, 2000)]
    assert bought(dataset, "U2") == ["B1"]
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
    assert bought(dataset, "U") == ["P2", "P1"]
    assert [i.timestamp for i in dataset.sequences["U"]] == [1_588_687_728] * 2
    kite, ball = dataset.items["P1"], dataset.items["P2"]
    assert (kite.categories, kite.brand, kite.price) == ((("Toys", "Kites"),), "Z", 7.5)
    assert (ball.description, ball.brand, ball.price) == ("Round.", None, None)
    meta += [{"parent_asin": "P3", "title": "Top", "price": "from 4.99"}]
    reviews += [{"user_id": "U", "asin": "P3", "rating": 5.0, "timestamp": 1_588_687_728_100}]
    write(tmp_path / "Toys.jsonl.gz", jsonl(reviews))
    write(tmp_path / "meta_Toys.jsonl.gz", jsonl(meta))
    assert "Prices that are no single amount (from 4.99, ...), left out: 1." in load_dataset(tmp_path).notes


@pytest.mark.parametrize(
    "element", ["<script>", "<script ", "</script", "<style>", "<b <", "<a ", "&#", "<script></style>"]
)
def test_markup_that_never_ends_is_read_in_linear_time(tmp_path: Path, element: str) -> None:
    text = element * (400_000 // len(element))
    started = time.process_time()
    dataset = load_dataset(amazon_2014(tmp_path, [review()], repr({"asin": "B1", "title": "x", "description": text})))
    assert time.process_time() - started < 5
    assert set(dataset.items) == {"B1"}


def test_scripts_are_left_out_and_what_follows_the_last_one_stays(tmp_path: Path) -> None:
    text = "a <script>x</script> b <STYLE type='t'>y</style > c <script>d"
    dataset = load_dataset(amazon_2014(tmp_path, [review()], repr({"asin": "B1", "title": "x", "description": text})))
    assert dataset.items["B1"].description == "a b c d"


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
