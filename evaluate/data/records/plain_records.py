"""Records of the plain format: interactions, items and users, from files or data frames."""

from __future__ import annotations

from evaluate.data.records.fields import categories, has_text, identifier, number, rating, seconds, text
from evaluate.data.records.interactions import InteractionRecord
from evaluate.data.records.reading import FieldError, Record
from programs.runtime.errors import quoted
from signatures.types import Item

ITEM_COLUMNS = ("item_id", "title", "description", "categories", "brand", "price", "keywords")


def plain_interaction(record: Record) -> InteractionRecord:
    """An interaction: user_id, item_id and optionally rating (0 to 5), timestamp (unix seconds) and position."""
    return InteractionRecord(
        user_id=identifier(record, "user_id"),
        item_id=identifier(record, "item_id"),
        rating=rating(record, "rating"),
        timestamp=seconds(record, "timestamp"),
        position=number(record, "position"),
    )


def plain_item(record: Record) -> Item:
    """An item: item_id and optionally title, description, categories, brand, price (at least 0) and keywords.

    Raises:
        FieldError: Also if title, description, categories and keywords are all missing.
    """
    item = described_item(record)
    if not has_text(item):
        problem = f"item {quoted(item.item_id)} has no text"
        raise FieldError(f"{problem}; give it a title, description, categories or keywords, or remove it")
    return item


def described_item(record: Record) -> Item:
    """An item like `plain_item`, with a text or without."""
    price = number(record, "price")
    if price is not None and price < 0:
        raise FieldError(f"field 'price': {price:g} is negative")
    return Item(
        item_id=identifier(record, "item_id"),
        title=text(record, "title"),
        description=text(record, "description"),
        categories=categories(record, "categories"),
        brand=text(record, "brand") or None,
        price=price,
        keywords=text(record, "keywords") or None,
    )


def plain_user(record: Record) -> tuple[str, dict[str, str]]:
    """A user: user_id, and every other column with a value as text; whole numbers without decimals.

    >>> plain_user({"user_id": "u", "age": 34.0, "region": None})
    ('u', {'age': '34'})
    """
    user_id = identifier(record, "user_id")
    whole = {k: int(v) if isinstance(v, float) and v.is_integer() else v for k, v in record.items() if k != "user_id"}
    return user_id, {field: value for field in whole if (value := text(whole, field))}
