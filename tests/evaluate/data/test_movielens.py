"""MovieLens 100K and 1M."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluate.data.load import load_dataset
from tests.support.files import bought, fails, write


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
    assert bought(dataset, "1") == ["1", "2"]
    assert dataset.sequences["1"][0].rating == 5.0
    assert dataset.metadata == {"1": {"age": "24", "gender": "M", "occupation": "technician", "zip": "85711"}}


def test_movielens_1m(tmp_path: Path) -> None:
    dataset = load_dataset(movielens_1m(tmp_path))
    assert (dataset.name, dataset.format) == ("ml-1m", "movielens-1m")
    assert dataset.items["10"].title == "Élan: Part II (1999)"
    assert dataset.items["10"].categories == (("Action",), ("Drama",))
    assert bought(dataset, "7") == ["20", "10"]
    assert dataset.metadata == {"7": {"age": "under 18", "gender": "F", "occupation": "K-12 student", "zip": "48067"}}


@pytest.mark.parametrize("make", [movielens_100k, movielens_1m])
def test_each_file_stands_for_its_directory(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    whole = load_dataset(make(tmp_path))
    for path in tmp_path.iterdir():
        assert load_dataset(path).sha256 == whole.sha256, path.name


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
            ["u.item, line 1", "'Action': 'x' is not a genre flag"],
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
