"""Loader of RecBole's atomic files: X.inter, X.item and optionally X.user, tables with typed column names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from evaluate.data.dataset import Dataset
from evaluate.data.loaders.tables import DataTable, assembled, interaction_names, item_names, user_names
from evaluate.data.records.column_names import check_all_found
from evaluate.data.records.fields import NO_GENRES, written_list
from evaluate.data.records.reading import FieldError, Record, column_problem, parsed, read_lines
from programs.runtime.errors import InputError, listed

RECBOLE_FILES = "RecBole, one dataset X: X.inter and X.item, optionally X.user"


class RecBoleFiles(NamedTuple):
    """The files of one dataset; `users` is None if there is no such file."""

    interactions: Path
    items: Path
    users: Path | None


def find_recbole(directory: Path) -> RecBoleFiles | None:
    """The atomic files in `directory`, or None without interactions or items.

    Raises:
        InputError: If there are the interactions of several datasets.
    """
    found = [files for path in sorted(directory.glob("*.inter")) if (files := recbole_files_of(path)) is not None]
    if len(found) > 1:
        several = listed(files.interactions.name for files in found)
        raise InputError(f"{directory}: holds the interactions of several datasets: {several}; give one of these files")
    return found[0] if found else None


def recbole_files_of(interactions: Path) -> RecBoleFiles | None:
    """The files of the dataset with these interactions, or None without items."""
    items, users = interactions.with_suffix(".item"), interactions.with_suffix(".user")
    return RecBoleFiles(interactions, items, users if users.is_file() else None) if items.is_file() else None


def load_recbole(files: RecBoleFiles, columns: Mapping[str, str]) -> Dataset:
    """Read a dataset. Items without a text, and interactions with unlisted items, are dropped and counted.

    Args:
        columns: Their names of columns by ours, for those that are not recognized.

    Raises:
        InputError: On invalid content, naming file, line and field or id.
    """
    interactions = DataTable(
        files.interactions,
        partial(atomic_records, files.interactions, ("user_id", "item_id"), columns),
        interaction_names(columns),
    )
    items = DataTable(files.items, partial(atomic_records, files.items, ("item_id",), columns), item_names(columns))
    users = None
    if files.users:
        users = DataTable(files.users, partial(atomic_records, files.users, ("user_id",), columns), user_names(columns))
    dataset = assembled(files.interactions.stem, "recbole", interactions, items, users, published=True)
    check_all_found(columns, [part.names for part in (interactions, items, users) if part is not None])
    return dataset


def atomic_records(
    path: Path, required: tuple[str, ...], mapped: Mapping[str, str] | None = None
) -> Iterator[tuple[int, Record]]:
    """The records of an atomic file, by column name without its type; arguments as of `read_records`."""
    lines = read_lines(path)
    _, header = next(lines)
    columns = header.split("\t")
    if (problem := column_problem(path, columns, required, mapped)) is not None:
        raise InputError(problem)

    def record(line: str) -> Record:
        values = line.split("\t")
        if len(values) != len(columns):
            raise FieldError(f"{len(values)} fields separated by tabs where the header has {len(columns)}")
        pairs = zip(columns, values, strict=True)
        fields = ((*column.partition(":")[::2], value) for column, value in pairs)
        return {_OTHER_NAMES.get(name, name): _value(name, kind, value) for name, kind, value in fields}

    return parsed(path, ((number, line) for number, line in lines if line.strip()), record)


def _value(name: str, kind: str, value: str) -> object:
    """A cell: missing, a text, or the category paths that a sequence of tokens stands for.

    >>> _value("genre", "token_seq", "Drama War"), _value("title", "token_seq", "Toy Story")
    ([['Drama'], ['War']], 'Toy Story')
    """
    if not value.strip():
        return None
    if kind != "token_seq" or name.lower() not in _CATEGORIES:
        return value
    if value.strip() == NO_GENRES:
        return None
    written = written_list(f"[{value}]") if value[0] in "'\"" else None
    if written is not None:
        return [str(level) for level in written]  # one path, as a list of Python was printed
    return [[token.strip()] for token in value.split("," if "," in value else None)]


_OTHER_NAMES = {"class": "categories"}
"""The genres of RecBole's MovieLens are called a class."""

_CATEGORIES = {"categories", "category", "genres", "genre", "class"}
"""Columns whose tokens are one category each; of a title they are the words."""
