"""Loader of RecBole's atomic files: X.inter, X.item and optionally X.user, tables with typed column names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from evaluate.data.dataset import Dataset
from evaluate.data.records.column_names import Renamer
from evaluate.data.records.fields import has_text, written_list
from evaluate.data.records.interactions import INTERACTION_COLUMNS, in_order
from evaluate.data.records.plain_records import ITEM_COLUMNS, described_item, plain_interaction, plain_user
from evaluate.data.records.reading import FieldError, Record, by_id, column_problem, parsed, read_lines
from programs.runtime.errors import InputError, listed
from signatures.types import Item

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
    found = sorted(path for path in directory.glob("*.inter") if path.with_suffix(".item").is_file())
    if len(found) > 1:
        several = listed(path.name for path in found)
        raise InputError(f"{directory}: holds the interactions of several datasets: {several}; keep one per directory")
    if not found:
        return None
    users = found[0].with_suffix(".user")
    return RecBoleFiles(found[0], found[0].with_suffix(".item"), users if users.is_file() else None)


def load_recbole(files: RecBoleFiles) -> Dataset:
    """Read a dataset. Items without a text, and interactions with unlisted items, are dropped and counted.

    Raises:
        InputError: On invalid content, naming file, line and field or id.
    """
    item_names, event_names = Renamer(ITEM_COLUMNS), Renamer(INTERACTION_COLUMNS)
    user_names = Renamer(("user_id",), keep_others=True)

    def item_by_id(record: Record) -> tuple[str, Item]:
        item = described_item(item_names(record))
        return item.item_id, item

    rows = parsed(files.items, _records(files.items, ("item_id",)), item_by_id)
    listed_items = by_id(files.items, rows)
    items = {item_id: item for item_id, item in listed_items.items() if has_text(item)}
    rows_of_events = _records(files.interactions, ("user_id", "item_id"))
    events = list(parsed(files.interactions, rows_of_events, lambda record: plain_interaction(event_names(record))))
    kept = [(line, event) for line, event in events if event.item_id in items]
    if not kept:
        raise InputError(f"{files.items}: no text for any of the items of {files.interactions.name}")
    notes: tuple[str, ...] = ()
    if len(kept) < len(events):
        dropped = f"{len(events) - len(kept):,} of {len(events):,}"
        notes += (f"Interactions dropped because {files.items.name} has no text for their item: {dropped}.",)
    interactions, order_notes = in_order(files.interactions, kept)
    notes += order_notes + item_names.notes(files.items.name) + event_names.notes(files.interactions.name)
    users: dict[str, dict[str, str]] = {}
    if files.users:
        rows_of_users = _records(files.users, ("user_id",))
        users = by_id(files.users, parsed(files.users, rows_of_users, lambda record: plain_user(user_names(record))))
    return Dataset(
        name=files.interactions.stem,
        items=items,
        interactions=interactions,
        metadata={user_id: facts for user_id, facts in users.items() if facts},
        notes=notes,
        format="recbole",
    )


def _records(path: Path, required: tuple[str, ...]) -> Iterator[tuple[int, Record]]:
    lines = read_lines(path)
    _, header = next(lines)
    columns = header.split("\t")
    if (problem := column_problem(path, columns, required)) is not None:
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
    written = written_list(f"[{value}]") if value[0] in "'\"" else None
    if written is not None:
        return [str(level) for level in written]  # one path, as a list of Python was printed
    return [[token.strip()] for token in value.split("," if "," in value else None)]


_OTHER_NAMES = {"class": "categories"}
"""The genres of RecBole's MovieLens are called a class."""

_CATEGORIES = {"categories", "category", "genres", "genre", "class"}
"""Columns whose tokens are one category each; of a title they are the words."""
