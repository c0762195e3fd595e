"""Public releases as they are published, each as a small invented sample, loaded by its folder and by a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from evaluate.data.load import load_dataset
from programs.runtime.errors import InputError
from tests.support.files import bought, fails, jsonl, write


def goodreads(folder: Path) -> Path:
    added = "Mon Jul 03 16:17:40 -0700 2017"
    shelf = {"user_id": "u", "review_id": "r", "is_read": True, "date_updated": added, "read_at": ""}
    rows = [
        shelf | {"book_id": "2", "rating": 4, "date_added": "Tue Jul 04 00:00:00 -0700 2017"},
        shelf | {"book_id": "1", "rating": 0, "date_added": added, "is_read": False},
        shelf | {"book_id": "9", "rating": 5, "date_added": added},
    ]
    book = {"isbn": "", "title": "Sea", "description": "Poems.", "publisher": "Gull", "authors": [{"author_id": "3"}]}
    shelves = [{"count": "9", "name": "to-read"}, {"count": "5", "name": "poetry"}, {"count": "2", "name": "sea"}]
    books = [book | {"book_id": "1", "popular_shelves": shelves}, book | {"book_id": "2", "popular_shelves": []}]
    write(folder / "goodreads_books_poetry.json.gz", jsonl(books))
    return write(folder / "goodreads_interactions_poetry.json.gz", jsonl(rows))


def hm(folder: Path) -> Path:
    write(
        folder / "articles.csv",
        "article_id,product_code,prod_name,product_type_name,product_group_name,colour_group_name,index_group_name,"
        "detail_desc\n"
        "0108775015,0108775,Strap top,Vest top,Garment Upper body,Black,Ladieswear,Jersey top with narrow straps.\n"
        '0108775044,0108775,"Tights, 2 pack",Tights,Socks & Tights,White,Ladieswear,\n',
    )
    write(folder / "customers.csv", "customer_id,FN,Active,club_member_status,age,postal_code\nu,1.0,,ACTIVE,34.0,x\n")
    return write(
        folder / "transactions_train.csv",
        "t_dat,customer_id,article_id,price,sales_channel_id\n"
        "2018-09-21,u,0108775044,0.05,2\n2018-09-20,u,0108775015,0.03,2\n2018-09-20,v,0108775015,0.03,1\n",
    )


def mind(folder: Path) -> Path:
    write(
        folder / "news.tsv",
        "N1\tsports\tgolf\tA long putt\tHe won.\thttps://x\t[]\t[]\n"
        'N2\tnews\tworld\tSo "it" goes\t\thttps://x\t[]\t[]\nN3\tfood\trecipes\tSoup\tWarm.\thttps://x\t[]\t[]\n',
    )
    return write(
        folder / "behaviors.tsv",
        "1\tU1\t11/15/2019 8:55:22 AM\tN1 N2\tN3-1 N2-0\n"
        "2\tU2\t11/14/2019 1:05:00 PM\t\tN2-1 N1-0\n3\tU2\t11/14/2019 9:05:00 AM\t\tN1-1\n",
    )


def steam(folder: Path) -> Path:
    game = {"publisher": "K", "genres": ["Action", "Indie"], "app_name": "Kitty", "tags": ["Strategy", "Cats"]}
    games = [game | {"id": "10", "price": 4.99, "developer": "D"}, game | {"id": "20", "price": "Free To Play"}, game]
    write(folder / "steam_games.json.gz", "".join(f"{row!r}\n" for row in games))
    review = {"hours": 0.1, "page_order": 0, "text": 'it\'s "good"', "early_access": False}
    rows = [
        review | {"username": "u", "product_id": "20", "date": "2017-12-18"},
        review | {"username": "u", "product_id": "10", "date": "2017-12-17"},
        review | {"username": "u", "product_id": "30", "date": "2017-12-17"},
    ]
    return write(folder / "steam_reviews.json.gz", "".join(f"{row!r}\n".replace("{'", "{u'") for row in rows))


FORMS: dict[str, tuple[Callable[[Path], Path], str, list[str]]] = {
    "goodreads": (goodreads, "u", ["1", "2"]),
    "hm": (hm, "u", ["0108775015", "0108775044"]),
    "mind": (mind, "U2", ["N1", "N2"]),
    "steam": (steam, "u", ["10", "20"]),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_folder_and_its_file_are_read_without_options(tmp_path: Path, name: str) -> None:
    make, user, expected = FORMS[name]
    path = make(tmp_path)
    dataset = load_dataset(tmp_path)
    assert dataset.format == name
    assert bought(dataset, user) == expected
    assert load_dataset(path).sha256 == dataset.sha256
    with pytest.raises(InputError, match="published dataset whose columns are known"):
        load_dataset(tmp_path, {"user_id": "user"})


def test_goodreads(tmp_path: Path) -> None:
    goodreads(tmp_path)
    dataset = load_dataset(tmp_path)
    assert dataset.name == "goodreads-poetry"
    first, second = dataset.sequences["u"]
    assert (first.rating, first.timestamp, second.rating) == (None, 1499123860, 4.0)
    book = dataset.items["1"]
    assert (book.title, book.description, book.brand, book.keywords) == ("Sea", "Poems.", "Gull", "poetry, sea")
    notes = "\n".join(dataset.notes)
    assert "goodreads_books_poetry.json.gz has no text for their item: 1 of 3" in notes
    assert "not used: date_updated, is_read, read_at, review_id" in notes and "authors, isbn" in notes


def test_interactions_are_preferred_to_reviews_of_the_same_books(tmp_path: Path) -> None:
    path = goodreads(tmp_path)
    reviews = [{"user_id": "v", "book_id": "1", "rating": 1, "date_added": "Mon Jul 03 16:17:40 -0700 2017"}]
    write(tmp_path / "goodreads_reviews_poetry.json.gz", jsonl(reviews))
    assert set(load_dataset(tmp_path).sequences) == {"u"}
    path.unlink()
    assert set(load_dataset(tmp_path).sequences) == {"v"}
    write(tmp_path / "goodreads_books_comics.json", "{}")
    write(tmp_path / "goodreads_interactions_comics.json", "{}")
    fails(tmp_path, "several datasets: goodreads_interactions_comics.json, goodreads_reviews_poetry.json.gz")


def test_hm(tmp_path: Path) -> None:
    hm(tmp_path)
    dataset = load_dataset(tmp_path)
    top = dataset.items["0108775015"]
    assert (top.title, top.description, top.keywords) == ("Strap top", "Jersey top with narrow straps.", "Black")
    assert top.categories == (("Ladieswear", "Garment Upper body", "Vest top"),)
    assert dataset.metadata == {"u": {"age": "34", "club member": "ACTIVE"}}
    assert dataset.sequences["u"][0].timestamp == 1537401600
    assert any("price, sales_channel_id" in note for note in dataset.notes)


def test_mind(tmp_path: Path) -> None:
    mind(tmp_path)
    dataset = load_dataset(tmp_path)
    assert bought(dataset, "U1") == ["N1", "N2", "N3"]
    assert [event.timestamp for event in dataset.sequences["U1"]] == [None, None, 1573808122]
    assert dataset.items["N1"].categories == (("sports", "golf"),)
    assert dataset.items["N2"].title == 'So "it" goes'


def test_steam(tmp_path: Path) -> None:
    steam(tmp_path)
    dataset = load_dataset(tmp_path)
    assert (dataset.items["10"].price, dataset.items["20"].price) == (4.99, None)
    assert dataset.items["10"].categories == (("Action",), ("Indie",))
    assert (dataset.items["10"].keywords, dataset.items["10"].brand) == ("Strategy, Cats", "D")


def test_steam_runs_no_code_of_a_file(tmp_path: Path) -> None:
    path = steam(tmp_path)
    write(path, f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()\n")
    fails(tmp_path, "steam_reviews.json.gz, line 1: neither JSON nor a Python literal")
    assert not (tmp_path / "ran").exists()


def test_errors_name_file_line_and_field(tmp_path: Path) -> None:
    write(goodreads(tmp_path / "g"), jsonl([{"user_id": "u", "book_id": "1", "date_added": "yesterday"}]))
    fails(tmp_path / "g", "poetry.json.gz, line 1", "'date_added': 'yesterday' is not a time written as %a %b")
    write(hm(tmp_path / "h"), "t_dat,customer_id,article_id\n2018-09-20,,0108775015\n")
    fails(tmp_path / "h", "transactions_train.csv, line 2", "'user_id' is missing")
    write(mind(tmp_path / "m"), "1\tU1\t2019-11-15\tN1\tN3-1\n")
    fails(tmp_path / "m", "behaviors.tsv, line 1", "'time': '2019-11-15' is not a time")
    write(tmp_path / "m" / "behaviors.tsv", "1\tU1\tN1\n")
    fails(tmp_path / "m", "behaviors.tsv, line 1: 3 fields separated by tabs; expected 5: impression_id")
    hm(tmp_path / "m")
    mind(tmp_path / "m")
    fails(tmp_path / "m", "several datasets: transactions_train.csv, behaviors.tsv")


REVIEWS = [
    {"rating": 5.0, "title": "Nice", "asin": "B1a", "parent_asin": "B1", "user_id": "U", "timestamp": 1600000002000},
    {"rating": 3.0, "title": "Meh", "asin": "B2", "parent_asin": "B2", "user_id": "U", "timestamp": 1600000001000},
]
BEAUTY = {"main_category": "All Beauty", "store": "Z", "categories": []}
META = [
    BEAUTY | {"title": "Comb", "price": "None", "parent_asin": "B1"},
    BEAUTY | {"title": "Soap", "price": "4.5", "parent_asin": "B2"},
]


@pytest.mark.parametrize(
    ("reviews", "meta"),
    [
        (["All_Beauty.jsonl"], ["meta_All_Beauty.jsonl"]),
        (["All_Beauty.jsonl.gz"], ["meta_All_Beauty.jsonl.gz"]),
        (["All_Beauty.parquet"], ["meta_All_Beauty.parquet"]),
        (["raw/review_categories/All_Beauty.jsonl"], ["raw/meta_categories/meta_All_Beauty.jsonl"]),
        (
            [f"raw_review_All_Beauty/full-{n:05}-of-00002.parquet" for n in (0, 1)],
            [f"raw_meta_All_Beauty/full-{n:05}-of-00002.parquet" for n in (0, 1)],
        ),
    ],
)
def test_amazon_2023_as_hugging_face_has_it(tmp_path: Path, reviews: list[str], meta: list[str]) -> None:
    for names, rows in ((reviews, REVIEWS), (meta, META)):
        for number, name in enumerate(names):
            path, part = tmp_path / name, rows[number :: len(names)]
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".parquet":
                pd.DataFrame(part).to_parquet(path)
            else:
                write(path, jsonl(part))
    dataset = load_dataset(tmp_path)
    assert (dataset.name, dataset.format) == ("All_Beauty", "amazon-2023")
    assert bought(dataset, "U") == ["B2", "B1"]
    assert [dataset.items[item].price for item in ("B1", "B2")] == [None, 4.5]
    assert dataset.items["B2"].title == "Soap"
    assert any("not used: title." in note for note in dataset.notes)
