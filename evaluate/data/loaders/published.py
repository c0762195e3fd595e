"""Loader of public releases as they were published: Goodreads, H&M and Steam, one entry of a table each, and MIND."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

from evaluate.data.dataset import Dataset
from evaluate.data.loaders.amazon import json_or_literal, price_of
from evaluate.data.loaders.mind import mind_clicks, mind_news_records
from evaluate.data.loaders.tables import DataTable, assembled, interaction_names, item_names, user_names
from evaluate.data.records.column_names import Renamer
from evaluate.data.records.fields import absent, number, seconds, text
from evaluate.data.records.reading import FieldError, Record, only_file, read_objects, read_records
from programs.runtime.errors import InputError, listed

Records = Iterator[tuple[int, Record]]


@dataclass(frozen=True)
class PublishedTable:
    """A file of a release.

    Attributes:
        names: Possible names of the file, the preferred one first, each also with `.gz`; `{}` is the part of a release
            that has several, such as a genre.
        fields: Their name of a field by ours.
        read: Reads the file's records, with their line numbers.
        convert: What a record is before its fields are renamed, see `DataTable`.
    """

    names: tuple[str, ...]
    fields: Mapping[str, str]
    read: Callable[[Path], Records]
    convert: Callable[[Record], Record] = field(default=lambda record: record)

    def find(self, directory: Path, part: str) -> Path | None:
        """The file in `directory`, of one part of the release or, with an empty `part`, of all of it.

        Raises:
            InputError: if it is there twice, compressed and not.
        """
        names = [name.format(part) for name in self.names if bool(part) == ("{}" in name)]
        found = (only_file(directory, (name, name + ".gz")) for name in names)
        return next((path for path in found if path is not None), None)

    def at(self, path: Path, names: Callable[[Mapping[str, str], bool], Renamer]) -> DataTable:
        """The table in this file, with its fields renamed."""
        return DataTable(path, partial(self.read, path), names(self.fields, True), self.convert)


@dataclass(frozen=True)
class PublishedForm:
    """A release: its short name, and its tables."""

    name: str
    interactions: PublishedTable
    items: PublishedTable
    users: PublishedTable | None = None


def table_records(path: Path) -> Records:
    """The records of a table with a header."""
    return read_records(path, ())


def literal_records(path: Path) -> Records:
    """The records of a file with one JSON object, or one Python literal, a line; nothing of it is executed."""
    return read_objects(path, json_or_literal)


def goodreads_interaction(record: Record) -> Record:
    """A book on a user's shelf; a rating of 0 stands for none."""
    rated = record.get("rating")
    added = seconds(record, "date_added", form="%a %b %d %H:%M:%S %z %Y")
    return {**record, "rating": None if str(rated) == "0" else rated, "date_added": added}


SHELVES = 10
"""Shelves of a book that become its keywords, those of most users."""

OWN_SHELVES = {
    "to-read",
    "currently-reading",
    "owned",
    "owned-books",
    "books-i-own",
    "favorites",
    "favourites",
    "default",
}
"""Shelves that say what a user does with a book, not what it is about."""


def goodreads_book(record: Record) -> Record:
    """A book; the shelves that most users put it on are its keywords."""
    shelves = record.get("popular_shelves") or []
    if not isinstance(shelves, list) or not all(isinstance(shelf, dict) for shelf in shelves):
        raise FieldError("field 'popular_shelves': not a list of objects with a name")
    names = [name for shelf in shelves if (name := text(shelf, "name")) not in OWN_SHELVES]
    return {**record, "popular_shelves": ", ".join(names[:SHELVES])}


def with_path(record: Record, *levels: str) -> Record:
    """A record with several fields as the levels of one category path."""
    path = [level for name in levels if (level := text(record, name))]
    return {name: value for name, value in record.items() if name not in levels} | {"categories": [path]}


def hm_article(record: Record) -> Record:
    """An article with its three levels of categories as one path."""
    return with_path(record, "index_group_name", "product_group_name", "product_type_name")


def hm_customer(record: Record) -> Record:
    """A customer; the age is a number written as 34.0."""
    return {**record, "age": number(record, "age")}


def mind_news(record: Record) -> Record:
    """A news with category and subcategory as one path."""
    return with_path(record, "category", "subcategory")


def steam_game(record: Record) -> Record:
    """A game; a price in words, such as Free to Play, is none, and each genre is a category of its own."""
    genres, tags = record.get("genres") or [], record.get("tags")
    return {
        **record,
        "price": price_of(record.get("price")),
        "genres": [[genre] for genre in genres] if isinstance(genres, list) else genres,
        "tags": ", ".join(map(str, tags)) if isinstance(tags, list) else tags,
    }


def steam_games(path: Path) -> Records:
    """The games of Steam; the few records without an id describe no game that a review names."""
    return ((line, record) for line, record in literal_records(path) if not absent(record.get("id")))


PUBLISHED_FORMS = (
    PublishedForm(
        name="goodreads",
        interactions=PublishedTable(
            names=(
                "goodreads_interactions_{}.json",
                "goodreads_reviews_{}.json",
                "goodreads_interactions_dedup.json",
                "goodreads_reviews_dedup.json",
            ),
            fields={"user_id": "user_id", "item_id": "book_id", "rating": "rating", "timestamp": "date_added"},
            read=read_objects,
            convert=goodreads_interaction,
        ),
        items=PublishedTable(
            names=("goodreads_books_{}.json", "goodreads_books.json"),
            fields={
                "item_id": "book_id",
                "title": "title",
                "description": "description",
                "brand": "publisher",
                "keywords": "popular_shelves",
            },
            read=read_objects,
            convert=goodreads_book,
        ),
    ),
    PublishedForm(
        name="hm",
        interactions=PublishedTable(
            names=("transactions_train.csv", "transactions_train.parquet"),
            fields={"user_id": "customer_id", "item_id": "article_id", "timestamp": "t_dat"},
            read=table_records,
        ),
        items=PublishedTable(
            names=("articles.csv", "articles.parquet"),
            fields={
                "item_id": "article_id",
                "title": "prod_name",
                "description": "detail_desc",
                "categories": "categories",
                "keywords": "colour_group_name",
            },
            read=table_records,
            convert=hm_article,
        ),
        users=PublishedTable(
            names=("customers.csv", "customers.parquet"),
            fields={"user_id": "customer_id", "age": "age", "club member": "club_member_status"},
            read=table_records,
            convert=hm_customer,
        ),
    ),
    PublishedForm(
        name="mind",
        interactions=PublishedTable(
            names=("behaviors.tsv",),
            fields={name: name for name in ("user_id", "item_id", "timestamp", "position")},
            read=mind_clicks,
        ),
        items=PublishedTable(
            names=("news.tsv",),
            fields={"item_id": "news_id", "title": "title", "description": "abstract", "categories": "categories"},
            read=mind_news_records,
            convert=mind_news,
        ),
    ),
    PublishedForm(
        name="steam",
        interactions=PublishedTable(
            names=("steam_reviews.json",),
            fields={"user_id": "username", "item_id": "product_id", "timestamp": "date"},
            read=literal_records,
        ),
        items=PublishedTable(
            names=("steam_games.json",),
            fields={
                "item_id": "id",
                "title": "app_name",
                "categories": "genres",
                "brand": "developer",
                "price": "price",
                "keywords": "tags",
            },
            read=steam_games,
            convert=steam_game,
        ),
    ),
)

PUBLISHED_FILES = (
    "Goodreads: goodreads_interactions_X.json (or goodreads_reviews_X.json) and goodreads_books_X.json, also with .gz; "
    "H&M: transactions_train.csv and articles.csv, optionally customers.csv; MIND: behaviors.tsv and news.tsv; "
    "Steam: steam_reviews.json and steam_games.json, also with .gz"
)


class PublishedFiles(NamedTuple):
    """The files of a release in a folder; `users` is None if there is no such file."""

    form: PublishedForm
    name: str
    interactions: Path
    items: Path
    users: Path | None


def find_published(directory: Path) -> PublishedFiles | None:
    """The files of a release in `directory`, or None.

    Raises:
        InputError: If there are those of several releases or parts of one, or one of them exists twice.
    """
    found = [files for form in PUBLISHED_FORMS for files in _parts(directory, form)]
    if len(found) > 1:
        several = listed(files.interactions.name for files in found)
        raise InputError(f"{directory}: holds several datasets: {several}; keep one per directory")
    return found[0] if found else None


def _parts(directory: Path, form: PublishedForm) -> Iterator[PublishedFiles]:
    patterns = [re.escape(name).replace(r"\{\}", "(.+?)") + r"(?:\.gz)?" for name in form.items.names if "{}" in name]
    named = (re.fullmatch(pattern, path.name) for path in directory.iterdir() for pattern in patterns)
    for part in ("", *sorted({match[1] for match in named if match})):
        interactions, items = form.interactions.find(directory, part), form.items.find(directory, part)
        if interactions and items:
            users = form.users.find(directory, part) if form.users else None
            yield PublishedFiles(form, "-".join(filter(None, (form.name, part))), interactions, items, users)


def load_published(files: PublishedFiles) -> Dataset:
    """Read a release: the first record of an item counts, and interactions whose item has no text are left out.

    Raises:
        InputError: On lines that cannot be read, missing fields or values out of range; names file, line and field.
    """
    form = files.form
    users = form.users.at(files.users, user_names) if form.users and files.users else None
    interactions = form.interactions.at(files.interactions, interaction_names)
    items = form.items.at(files.items, item_names)
    return assembled(files.name, form.name, interactions, items, users, published=True)
