"""Loader of a single file: interactions alone, or interactions with the columns of their items in the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluate.data.dataset import Dataset
from evaluate.data.loaders.recbole import atomic_records
from evaluate.data.loaders.tables import DataTable, interaction_names, item_names, read_events
from evaluate.data.records.column_names import check_all_found, recognized
from evaluate.data.records.fields import absent, has_text, identifier
from evaluate.data.records.interactions import in_order
from evaluate.data.records.plain_records import ITEM_COLUMNS, described_item
from evaluate.data.records.reading import TABLE_SUFFIXES, Record, location, parsed, read_records, table_columns
from programs.runtime.errors import InputError, listed
from signatures.types import Item

SINGLE_FILES = "one file of interactions, with the columns of their items or without, such as purchases.csv"

ATOMIC = ".inter"

MOST_DIFFERENT = 0.05
"""Share of the items with several rows that may have different values in a column of items."""

REVIEW_COLUMNS = ("reviewText", "reviewerName", "helpful_vote", "verified_purchase", "review_text", "review_id")
"""Columns of reviews: their title and text are those of the review, which would give its item away."""

_ITEM_TEXTS = ("title", "description", "categories", "keywords")
_ITEM_FACTS = (*_ITEM_TEXTS, "brand", "price")

Numbered = Sequence[tuple[int, Record]]


def is_single(path: Path) -> bool:
    """Whether a file can be read alone, by its name."""
    return path.suffix == ATOMIC or path.name.endswith(TABLE_SUFFIXES)


def has_item_texts(path: Path, columns: Mapping[str, str]) -> bool:
    """Whether a table of interactions has a column with texts of items."""
    names = table_columns(path) if path.name.endswith(TABLE_SUFFIXES) else None
    if names is None or set(names) & set(REVIEW_COLUMNS):
        return False
    return bool(set(recognized(names, ITEM_COLUMNS, columns).values()) & set(_ITEM_TEXTS))


def load_single(path: Path, columns: Mapping[str, str]) -> Dataset:
    """Read a single file. Without columns of items the ids of the items stand in for their texts.

    A column that differs between rows of one item is no property of the item, such as the price of a sale or the text
    of a review; it is not used, and a note says so.

    Args:
        columns: Their names of columns by ours, for those that are not recognized.

    Raises:
        InputError: On invalid content, naming file, line and field.
    """
    read = atomic_records if path.suffix == ATOMIC else read_records
    rows = list(read(path, ("user_id", "item_id"), columns))
    events, items = interaction_names(columns), item_names(columns)
    table = DataTable(path, lambda: iter(rows), events)
    found = read_events(table)
    ordered, order_notes = in_order(path, found)
    columns_there = {column for _, record in rows for column in record}
    catalogue, notes = _items(path, [(line, items(record)) for line, record in rows], columns_there)
    check_all_found(columns, [events, items])
    if not any(has_text(item) for item in catalogue.values()):
        catalogue = {event.item_id: Item(item_id=event.item_id, title=event.item_id) for _, event in found}
        notes += (
            f"{path.name} has no texts of items: item ids stand in for them, so nothing can be learned from content.",
        )
    events.beside(items)
    name = path.name.partition(".")[0]
    return Dataset(name, catalogue, ordered, notes=notes + order_notes + table.notes(), format="single-file")


def _items(path: Path, rows: Numbered, columns: set[str]) -> tuple[dict[str, Item], tuple[str, ...]]:
    """Items from the rows of interactions, under our names, and notes about columns that are no property of an item."""
    notes: tuple[str, ...] = ()
    if reviews := columns & set(REVIEW_COLUMNS):
        dropped: list[str] = list(_ITEM_FACTS)
        notes += (f"{path.name} holds reviews ({listed(sorted(reviews))}): its texts are not those of the items.",)
    else:
        dropped = [fact for fact in _ITEM_FACTS if _differs(rows, fact)]
    if dropped and not reviews:
        notes += (f"Not used, because rows of one item differ in them: {', '.join(dropped)}.",)

    def own(record: Record) -> Record:
        return {name: value for name, value in record.items() if name not in dropped}

    first: dict[str, Item] = {}
    for line, record in rows:
        item_id = identifier(record, "item_id")
        if item_id not in first or not has_text(first[item_id]):
            ((_, first[item_id]),) = parsed(path, [(line, own(record))], described_item)
    missing = [item_id for item_id, item in first.items() if not has_text(item)]
    if missing and len(missing) < len(first):
        line = next(line for line, record in rows if identifier(record, "item_id") == missing[0])
        raise InputError(
            f"{location(path, line)}: item {missing[0]!r:.200} has no text (items without one: {len(missing):,} of "
            f"{len(first):,}); give each a title, description, categories or keywords, or remove it"
        )
    return first, notes


def _differs(rows: Numbered, column: str) -> bool:
    values: dict[str, set[str]] = {}
    times: dict[str, int] = {}
    for _, record in rows:
        if not absent(record.get(column)):
            item_id = identifier(record, "item_id")
            values.setdefault(item_id, set()).add(str(record[column]))
            times[item_id] = times.get(item_id, 0) + 1
    repeated = [item_id for item_id, count in times.items() if count > 1]
    different = sum(len(values[item_id]) > 1 for item_id in repeated)
    return different > MOST_DIFFERENT * len(repeated)
