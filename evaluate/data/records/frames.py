"""Records from data frames: pandas, polars or Arrow; usual column names are recognized, others are mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from evaluate.data.records.interactions import check_known, in_order
from evaluate.data.records.plain_records import plain_event, plain_item, plain_user
from evaluate.data.records.reading import Record, by_id, parsed
from programs.runtime.errors import InputError
from signatures.types import Item

ALIASES: dict[str, tuple[str, ...]] = {
    "user_id": ("user", "userid", "uid", "reviewerid", "customer_id", "customerid", "visitorid"),
    "item_id": (
        "item",
        "itemid",
        "iid",
        "asin",
        "parent_asin",
        "product_id",
        "productid",
        "movie_id",
        "movieid",
        "sku",
    ),
    "rating": ("overall", "score", "stars", "weight"),
    "timestamp": ("time", "datetime", "date", "unixreviewtime", "ts"),
    "position": ("rank", "order"),
    "title": ("name", "item_name", "product_name", "product_title"),
    "description": ("text", "summary"),
    "categories": ("category", "genres", "genre", "main_category"),
    "brand": ("store", "manufacturer"),
    "price": (),
    "keywords": ("tags",),
}
"""Our columns, and names they often have elsewhere; compared without case, and without a `:token` behind them."""

EVENT_COLUMNS = ("user_id", "item_id", "rating", "timestamp", "position")
ITEM_COLUMNS = ("item_id", "title", "description", "categories", "brand", "price", "keywords")


@dataclass(frozen=True)
class FrameRecords:
    """What frames hold, validated: the parts of a dataset."""

    items: dict[str, Item]
    interactions: pd.DataFrame
    metadata: dict[str, dict[str, str]]
    notes: tuple[str, ...]


def read_frames(
    interactions: object, items: object | None, users: object | None, columns: Mapping[str, str]
) -> FrameRecords:
    """The records of frames; see `Dataset.from_frames` for the arguments.

    Raises:
        InputError: naming the column, or the row and field, that cannot be used.
    """
    unknown = sorted(columns.keys() - ALIASES.keys())
    if unknown:
        raise InputError(f"columns: {unknown[0]!r} is none of our columns: {', '.join(ALIASES)}")
    where = Path("interactions")
    frame = _named(where, interactions, EVENT_COLUMNS, ("user_id", "item_id"), columns)
    events = list(parsed(where, _records(_in_seconds(frame)), plain_event))
    if not events:
        raise InputError("interactions: the frame has no rows")
    notes: tuple[str, ...] = ()
    if items is None:
        catalogue = {event.item_id: Item(item_id=event.item_id, title=event.item_id) for _, event in events}
        notes += ("No items given: item ids stand in for their texts, so nothing can be learned from content.",)
    else:
        listed = _named(Path("items"), items, ITEM_COLUMNS, ("item_id",), columns)
        catalogue = by_id(Path("items"), parsed(Path("items"), _records(listed), _item_by_id))
        check_known(where, events, catalogue, listed_in=Path("items"))
    ordered, order_notes = in_order(where, events)
    metadata: dict[str, dict[str, str]] = {}
    if users is not None:
        people = _named(Path("users"), users, ("user_id",), ("user_id",), columns, keep_others=True)
        found = by_id(Path("users"), parsed(Path("users"), _records(people), plain_user))
        metadata = {user_id: values for user_id, values in found.items() if values}
    return FrameRecords(catalogue, ordered, metadata, notes + order_notes)


def _pandas(where: Path, frame: object) -> pd.DataFrame:
    if isinstance(frame, pd.DataFrame):
        return frame
    convert: Any = getattr(frame, "to_pandas", None)
    if convert is None:
        raise InputError(f"{where}: a {type(frame).__name__} is no data frame; give pandas, polars or Arrow")
    converted: pd.DataFrame = convert()
    return converted


def _named(
    where: Path,
    frame: object,
    ours: tuple[str, ...],
    required: tuple[str, ...],
    columns: Mapping[str, str],
    keep_others: bool = False,
) -> pd.DataFrame:
    """The frame with our column names; other columns are left out, or kept where `keep_others`."""
    table = _pandas(where, frame)
    theirs = {str(column).partition(":")[0].lower(): column for column in table.columns}
    names: dict[object, str] = {}
    for our in ours:
        if our in columns and columns[our] in table.columns:
            names[columns[our]] = our
            continue
        found = next((theirs[alias] for alias in (our, *ALIASES[our]) if alias in theirs), None)
        if found is not None and found not in names:
            names[found] = our
    missing = [column for column in required if column not in names.values()]
    if missing:
        raise InputError(
            f"{where}: no column {missing[0]!r} among {', '.join(map(str, table.columns))}; "
            f"name it with columns={{{missing[0]!r}: YOUR_COLUMN}}"
        )
    kept = list(table.columns) if keep_others else list(names)
    return table[kept].rename(columns=names)


def _in_seconds(frame: pd.DataFrame) -> pd.DataFrame:
    """With dates as unix seconds."""
    if "timestamp" not in frame or not pd.api.types.is_datetime64_any_dtype(frame["timestamp"]):
        return frame
    times = pd.to_datetime(frame["timestamp"], utc=True)
    seconds = times.astype("datetime64[s, UTC]").astype("int64").astype(float)
    return frame.assign(timestamp=seconds.where(times.notna()))


def _records(frame: pd.DataFrame) -> Iterator[tuple[int, Record]]:
    columns = [str(column) for column in frame.columns]
    for row, values in enumerate(frame.itertuples(index=False, name=None), start=1):
        yield row, dict(zip(columns, map(_plain_value, values), strict=True))


def _plain_value(value: Any) -> object:
    """A value as Python has it: scalars of numpy and arrays of lists unpacked."""
    if isinstance(value, float | int | str) or value is None:
        return value
    if value is pd.NA or value is pd.NaT:
        return None
    return value.tolist() if hasattr(value, "tolist") else value


def _item_by_id(record: Record) -> tuple[str, Item]:
    item = plain_item(record)
    return item.item_id, item
