"""Tables: the files of a dataset as records under our column names, and the dataset that they make together."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from evaluate.data.dataset import Dataset
from evaluate.data.records.column_names import Renamer
from evaluate.data.records.fields import has_text
from evaluate.data.records.interactions import INTERACTION_COLUMNS, InteractionRecord, check_known, in_order
from evaluate.data.records.plain_records import (
    ITEM_COLUMNS,
    described_item,
    plain_interaction,
    plain_item,
    plain_user,
)
from evaluate.data.records.reading import Record, by_id, parsed
from programs.runtime.errors import InputError
from signatures.types import Item

Events = Sequence[tuple[int, InteractionRecord]]
"""Interactions with their line numbers."""


@dataclass(frozen=True)
class DataTable:
    """One file of a dataset.

    Attributes:
        path: For messages.
        records: Gives the records with their line numbers, under the file's own column names.
        names: Renames their fields to ours.
        convert: What the record is before it is renamed, where names alone do not make it ours, such as a rating of 0
            that stands for none; raises a FieldError.
    """

    path: Path
    records: Callable[[], Iterator[tuple[int, Record]]]
    names: Renamer
    convert: Callable[[Record], Record] = field(default=lambda record: record)

    def ours(self, record: Record) -> Record:
        """A record of the file with our fields."""
        return self.names(self.convert(record))

    def notes(self) -> tuple[str, ...]:
        """What was renamed and left out."""
        return self.names.notes(self.path.name)


def interaction_names(columns: Mapping[str, str], fixed: bool = False) -> Renamer:
    """The renamer of a table of interactions; `columns` and `fixed` as in `Renamer`."""
    return Renamer(INTERACTION_COLUMNS, mapped=columns, fixed=fixed)


def item_names(columns: Mapping[str, str], fixed: bool = False) -> Renamer:
    """The renamer of a table of items."""
    return Renamer(ITEM_COLUMNS, mapped=columns, fixed=fixed)


def user_names(columns: Mapping[str, str], fixed: bool = False) -> Renamer:
    """The renamer of a table of users: every other column is metadata under its own name, unless `fixed`."""
    return Renamer(("user_id",), keep_others=not fixed, mapped=columns, fixed=fixed)


def read_events(table: DataTable) -> list[tuple[int, InteractionRecord]]:
    """The interactions of a table.

    Raises:
        InputError: naming file, line and field of an invalid one.
    """
    return list(parsed(table.path, table.records(), lambda record: plain_interaction(table.ours(record))))


def assembled(
    name: str,
    form: str,
    interactions: DataTable,
    items: DataTable,
    users: DataTable | None = None,
    published: bool = False,
) -> Dataset:
    """The dataset that tables make together.

    Args:
        name: Short name for reports.
        form: Its format, for people.
        published: Whether the files are somebody else's release, which its users cannot repair: the first of several
            records of an item counts, and items without a text are left out with their interactions, all with notes.
            Otherwise all of that is an error.

    Raises:
        InputError: naming file, line and field or id.
    """
    catalogue, notes = _published_items(items) if published else (_own_items(items), ())
    events = read_events(interactions)
    if published:
        events, left_out = _with_items(interactions.path, items.path, events, catalogue)
        notes += left_out
    else:
        check_known(interactions.path, events, catalogue, listed_in=items.path)
    ordered, order_notes = in_order(interactions.path, events)
    notes += order_notes + items.notes() + interactions.notes()
    metadata: dict[str, dict[str, str]] = {}
    if users is not None:
        rows = parsed(users.path, users.records(), lambda record: plain_user(users.ours(record)))
        metadata = {user_id: facts for user_id, facts in by_id(users.path, rows).items() if facts}
        notes += users.notes()
        if idle := len(metadata.keys() - set(ordered["user_id"])):
            notes += (f"Users with metadata and without any interaction: {idle:,}.",)
    return Dataset(name=name, items=catalogue, interactions=ordered, metadata=metadata, notes=notes, format=form)


def _own_items(table: DataTable) -> dict[str, Item]:
    def item_by_id(record: Record) -> tuple[str, Item]:
        item = plain_item(table.ours(record))
        return item.item_id, item

    return by_id(table.path, parsed(table.path, table.records(), item_by_id))


def _published_items(table: DataTable) -> tuple[dict[str, Item], tuple[str, ...]]:
    """Items that have a text, and a note about repeated ones."""
    items: dict[str, Item] = {}
    repeated = 0
    for _, item in parsed(table.path, table.records(), lambda record: described_item(table.ours(record))):
        repeated += item.item_id in items
        items.setdefault(item.item_id, item)
    notes = (f"Repeated records of an item in {table.path.name}, first one kept: {repeated:,}.",) if repeated else ()
    return {item_id: item for item_id, item in items.items() if has_text(item)}, notes


def _with_items(
    path: Path, listed_in: Path, events: Events, items: Mapping[str, Item]
) -> tuple[list[tuple[int, InteractionRecord]], tuple[str, ...]]:
    """The interactions with an item that has a text, and a note about the others."""
    kept = [(line, event) for line, event in events if event.item_id in items]
    if not kept:
        raise InputError(f"{listed_in}: no text for any of the items of {path.name}; do the files belong together?")
    if len(kept) == len(events):
        return kept, ()
    dropped = f"{len(events) - len(kept):,} of {len(events):,}"
    return kept, (f"Interactions dropped because {listed_in.name} has no text for their item: {dropped}.",)
