"""Loader of the plain format: interactions, items and optionally users, each a Parquet, CSV or JSON Lines file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from evaluate.data.dataset import Dataset
from evaluate.data.records.column_names import Renamer
from evaluate.data.records.interactions import INTERACTION_COLUMNS, check_known, in_order
from evaluate.data.records.plain_records import ITEM_COLUMNS, plain_interaction, plain_item, plain_user
from evaluate.data.records.reading import TABLE_SUFFIXES, Record, by_id, only_file, parsed, read_records, table_problem
from programs.runtime.errors import InputError
from signatures.types import Item

PLAIN_FILES = (
    "plain: interactions and items, optionally users, each as .parquet, .csv or .jsonl (the last two also with .gz)"
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


def load_plain(files: PlainFiles) -> Dataset:
    """Read a dataset in the plain format (fields: see `plain_item`, `plain_interaction`, `plain_user`).

    Raises:
        InputError: On invalid content, naming file, line and field or id; all missing columns at once.
    """
    required = {files.items: ("item_id",), files.interactions: ("user_id", "item_id"), files.users: ("user_id",)}
    problems = [table_problem(path, columns) for path, columns in required.items() if path is not None]
    if any(problems):
        raise InputError("\n".join(filter(None, problems)))
    item_names, event_names = Renamer(ITEM_COLUMNS), Renamer(INTERACTION_COLUMNS)
    user_names = Renamer(("user_id",), keep_others=True)

    def item_by_id(record: Record) -> tuple[str, Item]:
        item = plain_item(item_names(record))
        return item.item_id, item

    items = by_id(files.items, parsed(files.items, read_records(files.items, ("item_id",)), item_by_id))
    rows = read_records(files.interactions, ("user_id", "item_id"))
    events = list(parsed(files.interactions, rows, lambda record: plain_interaction(event_names(record))))
    check_known(files.interactions, events, items, listed_in=files.items)
    interactions, notes = in_order(files.interactions, events)
    notes += item_names.notes(files.items.name) + event_names.notes(files.interactions.name)
    users: dict[str, dict[str, str]] = {}
    if files.users:
        rows = read_records(files.users, ("user_id",))
        users = by_id(files.users, parsed(files.users, rows, lambda record: plain_user(user_names(record))))
        notes += user_names.notes(files.users.name)
    metadata = {user_id: values for user_id, values in users.items() if values}
    idle = len(metadata.keys() - set(interactions["user_id"]))
    if idle:
        notes += (f"Users with metadata and without any interaction: {idle:,}.",)
    return Dataset(
        name=files.items.resolve().parent.name,
        items=items,
        interactions=interactions,
        metadata=metadata,
        notes=notes,
        format="plain",
    )
