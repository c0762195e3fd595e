"""RecBole's atomic files."""

from __future__ import annotations

from pathlib import Path

from evaluate.data.load import load_dataset
from tests.support.files import bought, fails, write

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\ta\t4\t20\nu\tb\t5\t10.0\nv\tz\t3\t5\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "a\tToy Story\t1995\tAnimation Children's\nb\tHeat\t1995\t\nc\t\t\t\n"
)


def files(directory: Path, inter: str = INTER, item: str = ITEM) -> Path:
    write(directory / "ml.inter", inter)
    write(directory / "ml.item", item)
    return directory


def test_values(tmp_path: Path) -> None:
    write(files(tmp_path) / "ml.user", "user_id:token\tage:token\nu\t24\nv\t\n")
    dataset = load_dataset(tmp_path)
    assert (dataset.name, dataset.format) == ("ml", "recbole")
    assert set(dataset.items) == {"a", "b"}
    assert dataset.items["a"].title == "Toy Story"
    assert dataset.items["a"].categories == (("Animation",), ("Children's",))
    assert bought(dataset, "u") == ["b", "a"]
    assert [event.rating for event in dataset.sequences["u"]] == [5.0, 4.0]
    assert dataset.metadata == {"u": {"age": "24"}}
    notes = "\n".join(dataset.notes)
    assert "ml.item has no text for their item: 1 of 3" in notes
    assert "release_year" in notes and "movie_title as title" in notes


def test_category_paths_as_they_were_printed(tmp_path: Path) -> None:
    item = "item_id:token\ttitle:token\tcategories:token_seq\na\tKite\t'Toys & Games', 'Kites'\nb\tBall\tBalls, Gifts\n"
    dataset = load_dataset(files(tmp_path, item=item))
    assert dataset.items["a"].categories == (("Toys & Games", "Kites"),)
    assert dataset.items["b"].categories == (("Balls",), ("Gifts",))


def test_a_film_without_genres_has_no_category(tmp_path: Path) -> None:
    item = "item_id:token\ttitle:token\tgenre:token_seq\na\tKite\t(no genres listed)\nb\tBall\tDrama War\n"
    dataset = load_dataset(files(tmp_path, item=item))
    assert dataset.items["a"].categories == ()
    assert dataset.items["b"].categories == (("Drama",), ("War",))


def test_errors_name_file_line_and_field(tmp_path: Path) -> None:
    fails(files(tmp_path, INTER + "u\ta\n"), "ml.inter, line 5", "2 fields separated by tabs where the header has 4")
    fails(files(tmp_path, INTER.replace("\t4\t", "\tgood\t")), "ml.inter, line 2", "'rating': 'good' is not a number")
    fails(files(tmp_path, INTER.replace("item_id", "thing")), "ml.inter: missing column item_id; it has user_id:token")
    fails(files(tmp_path, item="item_id:token\nx\n"), "ml.item: no text for any of the items of ml.inter")
    (files(tmp_path) / "ml.item").unlink()
    fails(tmp_path, "ml.inter is there, ml.item with the items and their texts is missing")
    write(files(tmp_path) / "other.inter", INTER)
    write(tmp_path / "other.item", ITEM)
    fails(tmp_path, "ml.inter, other.inter", "give one of these files")
    assert load_dataset(tmp_path / "other.inter").name == "other"
