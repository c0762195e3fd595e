"""The plain form: interactions, items and optionally users, each one Parquet, CSV or JSON-lines file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from evaluate.data.dataset import Dataset
from evaluate.data.loaders.fields import categories, has_text, identifier, number, rating, seconds, text
from evaluate.data.loaders.interactions import Event, check_known, in_order
from evaluate.data.loaders.reading import TABLE_SUFFIXES, FieldError, Record, by_id, only_file, parsed, read_records
from signatures.types import Item

PLAIN_FILES = (
    "plain: interactions and items, optionally users, each as .parquet, .csv or .jsonl (the last two also with .gz)"
)
EXPECTED_FIELDS = frozenset(Item.model_fields) | {"sales_rank"}


class PlainFiles(NamedTuple):
    """The files of one dataset; `users` is None where there is no such file."""

    interactions: Path
    items: Path
    users: Path | None


def find_plain(directory: Path) -> PlainFiles | None:
    """The files of the plain form in `directory`, or None if it is not in that form.

    Raises:
        InputError: If one of them is there in two formats.
    """
    interactions, items, users = (
        only_file(directory, (stem + suffix for suffix in TABLE_SUFFIXES))
        for stem in ("interactions", "items", "users")
    )
    return PlainFiles(interactions, items, users) if interactions and items else None


def load_plain(files: PlainFiles) -> Dataset:
    """Reads a dataset in the plain form (docs of the fields: `plain_item`, `plain_event`, `plain_user`).

    Raises:
        InputError: On anything that cannot be used, naming file, line and field or id.
    """
    unused: set[str] = set()

    def item_by_id(record: Record) -> tuple[str, Item]:
        unused.update(record.keys() - EXPECTED_FIELDS)
        item = plain_item(record)
        return item.item_id, item

    items = by_id(files.items, parsed(files.items, read_records(files.items, ("item_id",)), item_by_id))
    events = list(parsed(files.interactions, read_records(files.interactions, ("user_id", "item_id")), plain_event))
    check_known(files.interactions, events, items, listed_in=files.items)
    interactions, notes = in_order(files.interactions, events)
    if unused:
        notes += (f"Fields of {files.items.name} that are not used: {', '.join(sorted(unused))}.",)
    users: dict[str, dict[str, str]] = {}
    if files.users:
        users = by_id(files.users, parsed(files.users, read_records(files.users, ("user_id",)), plain_user))
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


def plain_event(record: Record) -> Event:
    """user_id, item_id and, where known, rating (0 to 5), timestamp (unix seconds) and position."""
    return Event(
        user_id=identifier(record, "user_id"),
        item_id=identifier(record, "item_id"),
        rating=rating(record, "rating"),
        timestamp=seconds(record, "timestamp"),
        position=number(record, "position"),
    )


def plain_item(record: Record) -> Item:
    """item_id and, where known, title, description, categories, brand, price (at least 0) and keywords.

    Raises:
        FieldError: Also if there is neither title nor description nor categories nor keywords.
    """
    price = number(record, "price")
    if price is not None and price < 0:
        raise FieldError(f"field 'price': {price:g} is negative")
    item = Item(
        item_id=identifier(record, "item_id"),
        title=text(record, "title"),
        description=text(record, "description"),
        categories=categories(record, "categories"),
        brand=text(record, "brand") or None,
        price=price,
        keywords=text(record, "keywords") or None,
    )
    if not has_text(item):
        raise FieldError(
            f"item {item.item_id!r} has no text; give it a title, description, categories or keywords, or remove it"
        )
    return item


def plain_user(record: Record) -> tuple[str, dict[str, str]]:
    """user_id and every other column that has a value, as text; whole numbers without decimals.

    >>> plain_user({"user_id": "u", "age": 34.0, "region": None})
    ('u', {'age': '34'})
    """
    user_id = identifier(record, "user_id")
    whole = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in record.items() if k != "user_id"}
    return user_id, {field: value for field in whole if (value := text(whole, field))}
