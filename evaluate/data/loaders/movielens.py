"""Loader of MovieLens 100K and 1M (GroupLens): few texts, but user metadata (z_u of the paper's eq. 6)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from evaluate.data.dataset import Dataset
from evaluate.data.records.fields import categories, has_text, identifier, present, rating, seconds, text
from evaluate.data.records.interactions import InteractionRecord, check_known, in_order
from evaluate.data.records.reading import FieldError, Record, by_id, parsed, read_lines
from programs.runtime.errors import quoted
from signatures.types import Item

MOVIELENS_FILES = "MovieLens: u.data, u.item and u.user (100K), or ratings.dat, movies.dat and users.dat (1M)"

RATING_COLUMNS = ("user_id", "movie_id", "rating", "timestamp")
GENRES_100K = (
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
# The 1M release has codes for ages and occupations; a model needs words.
AGES_1M = {
    "1": "under 18",
    "18": "18-24",
    "25": "25-34",
    "35": "35-44",
    "45": "45-49",
    "50": "50-55",
    "56": "56 or older",
}
OCCUPATIONS_1M = {
    "0": "other or not specified",
    "1": "academic/educator",
    "2": "artist",
    "3": "clerical/admin",
    "4": "college/grad student",
    "5": "customer service",
    "6": "doctor/health care",
    "7": "executive/managerial",
    "8": "farmer",
    "9": "homemaker",
    "10": "K-12 student",
    "11": "lawyer",
    "12": "programmer",
    "13": "retired",
    "14": "sales/marketing",
    "15": "scientist",
    "16": "self-employed",
    "17": "technician/engineer",
    "18": "tradesman/craftsman",
    "19": "unemployed",
    "20": "writer",
}


@dataclass(frozen=True)
class MovieLensTable:
    """A text file without a header, in UTF-8 or, as published, in Latin-1: its name, separator and columns."""

    name: str
    separator: str
    columns: tuple[str, ...]

    def records(self, path: Path) -> Iterator[tuple[int, Record]]:
        """The file's records with their line numbers; a line with another number of fields is an InputError."""
        lines = ((line, row) for line, row in read_lines(path, encoding=_encoding(path)) if row.strip())
        return parsed(path, lines, self._record)

    def _record(self, row: str) -> Record:
        values = row.split(self.separator)
        if len(values) != len(self.columns):
            raise FieldError(
                f"{len(values)} fields separated by {self.separator!r}; expected {len(self.columns)}: "
                + ", ".join(self.columns)
            )
        return dict(zip(self.columns, values, strict=True))


def _encoding(path: Path) -> str:
    """UTF-8 where the whole file is valid in it: saved again by a user; else the Latin-1 of the release."""
    try:
        path.read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    except OSError:
        pass  # the reader says what is wrong
    return "utf-8"


@dataclass(frozen=True)
class MovieLensRelease:
    """The three files of a release, and how to read genres and codes."""

    name: str
    ratings: MovieLensTable
    movies: MovieLensTable
    users: MovieLensTable
    genres: Callable[[Record], tuple[tuple[str, ...], ...]]
    codes: Mapping[str, Mapping[str, str]]


def genres_of_flags(record: Record) -> tuple[tuple[str, ...], ...]:
    """The genres flagged 1 in a 100K record; its 19th genre, "unknown", is left out."""
    return tuple((genre,) for genre in GENRES_100K if _flag(record, genre))


def genres_of_list(record: Record) -> tuple[tuple[str, ...], ...]:
    """The genres of a 1M record, written `Action|Drama`."""
    return categories(record, "genres")


MOVIELENS_RELEASES = (
    MovieLensRelease(
        name="ml-100k",
        ratings=MovieLensTable("u.data", "\t", RATING_COLUMNS),
        movies=MovieLensTable(
            "u.item", "|", ("movie_id", "title", "released", "released_on_video", "url", "unknown", *GENRES_100K)
        ),
        users=MovieLensTable("u.user", "|", ("user_id", "age", "gender", "occupation", "zip")),
        genres=genres_of_flags,
        codes={},
    ),
    MovieLensRelease(
        name="ml-1m",
        ratings=MovieLensTable("ratings.dat", "::", RATING_COLUMNS),
        movies=MovieLensTable("movies.dat", "::", ("movie_id", "title", "genres")),
        users=MovieLensTable("users.dat", "::", ("user_id", "gender", "age", "occupation", "zip")),
        genres=genres_of_list,
        codes={"age": AGES_1M, "occupation": OCCUPATIONS_1M},
    ),
)


class MovieLensFiles(NamedTuple):
    """The files of a release, and which it is."""

    ratings: Path
    movies: Path
    users: Path
    release: MovieLensRelease


def find_movielens(directory: Path) -> MovieLensFiles | None:
    """The release whose three files are in `directory`, or None."""
    for release in MOVIELENS_RELEASES:
        tables = (release.ratings, release.movies, release.users)
        ratings, movies, users = (directory / table.name for table in tables)
        if all(path.is_file() for path in (ratings, movies, users)):
            return MovieLensFiles(ratings, movies, users, release)
    return None


def load_movielens(files: MovieLensFiles) -> Dataset:
    """Read a release: genres become categories of one level, user columns become metadata.

    Raises:
        InputError: On an invalid line; names file, line and field.
    """
    ratings, movies, users, release = files
    items = by_id(movies, parsed(movies, release.movies.records(movies), lambda row: movie_of(row, release)))
    metadata = by_id(users, parsed(users, release.users.records(users), lambda row: movielens_user(row, release)))
    events = list(parsed(ratings, release.ratings.records(ratings), movielens_interaction))
    check_known(ratings, events, items, listed_in=movies)
    interactions, notes = in_order(ratings, events)
    return Dataset(
        name=release.name,
        items=items,
        interactions=interactions,
        metadata=metadata,
        notes=notes,
        format=f"movielens-{release.name.removeprefix('ml-')}",
    )


def movielens_interaction(record: Record) -> InteractionRecord:
    """One rating; all four columns are required."""
    return InteractionRecord(
        user_id=identifier(record, "user_id"),
        item_id=identifier(record, "movie_id"),
        rating=present(rating(record, "rating"), "rating"),
        timestamp=present(seconds(record, "timestamp"), "timestamp"),
    )


def movie_of(record: Record, release: MovieLensRelease) -> tuple[str, Item]:
    """A movie's id and item."""
    movie = Item(item_id=identifier(record, "movie_id"), title=text(record, "title"), categories=release.genres(record))
    if not has_text(movie):
        raise FieldError(f"movie {quoted(movie.item_id)} has neither title nor genre")
    return movie.item_id, movie


def movielens_user(record: Record, release: MovieLensRelease) -> tuple[str, dict[str, str]]:
    """A user's id and age, gender, occupation and zip code, as words where the release has codes."""
    metadata = {}
    for field in ("age", "gender", "occupation", "zip"):
        value = text(record, field)
        words = release.codes.get(field, {value: value})
        if value not in words:
            raise FieldError(f"field {field!r}: {quoted(value)} is not among the codes {', '.join(words)}")
        metadata[field] = words[value]
    return identifier(record, "user_id"), {field: value for field, value in metadata.items() if value}


def _flag(record: Record, genre: str) -> bool:
    value = record[genre]
    if value not in ("0", "1"):
        raise FieldError(f"field {genre!r}: {quoted(value)} is not a genre flag; expected 0 or 1")
    return value == "1"
