"""Loader of the plain format: interactions, items and optionally users, each a Parquet, CSV, TSV or JSON Lines file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from evaluate.data.dataset import Dataset
from evaluate.data.loaders.tables import DataTable, assembled, interaction_names, item_names, user_names
from evaluate.data.records.column_names import Renamer, check_all_found
from evaluate.data.records.reading import TABLE_SUFFIXES, only_file, read_records, table_problem
from programs.runtime.errors import InputError

PLAIN_FILES = (
    "plain: interactions and items, optionally users, each as .parquet, .csv, .tsv or .jsonl (all but the first also "
    "with .gz)"
)

INTERACTION_STEMS = ("interactions", "ratings", "events")
ITEM_STEMS = ("items", "products", "movies")
USER_STEMS = ("users",)
"""Names of the files without their endings, ours first."""


class PlainFiles(NamedTuple):
    """The files of one dataset; `users` is None if there is no such file."""

    interactions: Path
    items: Path
    users: Path | None


def find_plain(directory: Path) -> PlainFiles | None:
    """The files of the plain format in `directory`, or None without interactions or items.

    Raises:
        InputError: If one of them exists in two formats.
    """
    interactions, items, users = (_table(directory, stems) for stems in (INTERACTION_STEMS, ITEM_STEMS, USER_STEMS))
    return PlainFiles(interactions, items, users) if interactions and items else None


def find_interactions(directory: Path) -> Path | None:
    """The interactions in `directory`, with items or without, or None."""
    return _table(directory, INTERACTION_STEMS)


def _table(directory: Path, stems: tuple[str, ...]) -> Path | None:
    """The table with the first of `stems` that is there."""
    found = (only_file(directory, (stem + suffix for suffix in TABLE_SUFFIXES)) for stem in stems)
    return next((path for path in found if path is not None), None)


def load_plain(files: PlainFiles, columns: Mapping[str, str]) -> Dataset:
    """Read a dataset in the plain format (fields: see `plain_item`, `plain_interaction`, `plain_user`).

    Args:
        columns: Their names of columns by ours, for those that are not recognized.

    Raises:
        InputError: On invalid content, naming file, line and field or id; all missing columns at once.
    """
    required = {files.items: ("item_id",), files.interactions: ("user_id", "item_id"), files.users: ("user_id",)}
    problems = [table_problem(path, needed, columns) for path, needed in required.items() if path is not None]
    if any(problems):
        raise InputError("\n".join(filter(None, problems)))

    def table(path: Path, names: Callable[[Mapping[str, str]], Renamer]) -> DataTable:
        return DataTable(path, partial(read_records, path, required[path], columns), names(columns))

    interactions, items = table(files.interactions, interaction_names), table(files.items, item_names)
    users = table(files.users, user_names) if files.users else None
    dataset = assembled(files.items.resolve().parent.name, "plain", interactions, items, users)
    check_all_found(columns, [part.names for part in (interactions, items, users) if part is not None])
    return dataset
