"""Reader of data frames (pandas, polars, Arrow): usual column names are recognized, others can be mapped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from evaluate.data.records.column_names import Renamer, check_all_found, check_our_columns
from evaluate.data.records.interactions import INTERACTION_COLUMNS, check_known, in_order
from evaluate.data.records.plain_records import ITEM_COLUMNS, plain_interaction, plain_item, plain_user
from evaluate.data.records.reading import Record, by_id, parsed
from programs.runtime.errors import InputError, listed
from signatures.types import Item


@dataclass(frozen=True)
class FrameRecords:
    """Validated content of frames: the parts of a dataset."""

    items: dict[str, Item]
    interactions: pd.DataFrame
    metadata: dict[str, dict[str, str]]
    notes: tuple[str, ...]


def read_frames(
    interactions: object, items: object | None, users: object | None, columns: Mapping[str, str]
) -> FrameRecords:
    """Read frames; see `Dataset.from_frames` for the arguments.

    Raises:
        InputError: naming the column, or the row and field, that is missing or invalid.
    """
    check_our_columns(columns)
    where = Path("interactions")
    renamers = {"interactions": Renamer(INTERACTION_COLUMNS, mapped=columns)}
    frame = _named(where, interactions, ("user_id", "item_id"), renamers["interactions"])
    events = list(parsed(where, _records(_in_seconds(frame)), plain_interaction))
    if not events:
        raise InputError("interactions: the frame has no rows")
    notes: tuple[str, ...] = ()
    if items is None:
        catalogue = {event.item_id: Item(item_id=event.item_id, title=event.item_id) for _, event in events}
        notes += ("No items given: item ids stand in for their texts, so nothing can be learned from content.",)
    else:
        renamers["items"] = Renamer(ITEM_COLUMNS, mapped=columns)
        known = _named(Path("items"), items, ("item_id",), renamers["items"])
        catalogue = by_id(Path("items"), parsed(Path("items"), _records(known), _item_by_id))
        check_known(where, events, catalogue, listed_in=Path("items"))
    ordered, order_notes = in_order(where, events)
    metadata: dict[str, dict[str, str]] = {}
    if users is not None:
        renamers["users"] = Renamer(("user_id",), keep_others=True, mapped=columns)
        table = _named(Path("users"), users, ("user_id",), renamers["users"])
        by_user = by_id(Path("users"), parsed(Path("users"), _records(table), plain_user))
        metadata = {user_id: values for user_id, values in by_user.items() if values}
    check_all_found(columns, list(renamers.values()), "frame")
    of_columns = tuple(note for name, renamer in renamers.items() for note in renamer.notes(name))
    return FrameRecords(catalogue, ordered, metadata, notes + order_notes + of_columns)


def _pandas(where: Path, frame: object) -> pd.DataFrame:
    if isinstance(frame, pd.DataFrame):
        return frame
    convert: Any = getattr(frame, "to_pandas", None)
    if convert is None:
        raise InputError(f"{where}: a {type(frame).__name__} is not a data frame; give pandas, polars or Arrow")
    converted: pd.DataFrame = convert()
    return converted


def _named(where: Path, frame: object, required: tuple[str, ...], renamer: Renamer) -> pd.DataFrame:
    """The frame with the columns that are kept, under our names."""
    table = _pandas(where, frame)
    table = table.rename(columns=str)
    names = renamer.names_of(tuple(table.columns))
    missing = [column for column in required if column not in names.values()]
    if missing:
        named = ", ".join(f"{column!r}: YOUR_COLUMN" for column in missing)
        raise InputError(
            f"{where}: no column {' and '.join(map(repr, missing))} among {listed(table.columns)}; "
            f"name it with columns={{{named}}}"
        )
    if not table.columns.is_unique:
        twice = listed(table.columns[table.columns.duplicated()].unique())
        raise InputError(f"{where}: column {twice} exists twice; keep one")
    return table[list(names)].rename(columns=names)


def _in_seconds(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with dates as unix seconds, with their fractions."""
    if "timestamp" not in frame or not pd.api.types.is_datetime64_any_dtype(frame["timestamp"]):
        return frame
    times = pd.to_datetime(frame["timestamp"], utc=True)
    seconds = times.astype("datetime64[us, UTC]").astype("int64") / 1e6
    return frame.assign(timestamp=seconds.where(times.notna()))


def _records(frame: pd.DataFrame) -> Iterator[tuple[int, Record]]:
    columns = [str(column) for column in frame.columns]
    for row, values in enumerate(frame.itertuples(index=False, name=None), start=1):
        yield row, dict(zip(columns, map(_plain_value, values), strict=True))


def _plain_value(value: Any) -> object:
    """A value as plain Python: numpy scalars and arrays converted, also inside lists; NA as None."""
    if isinstance(value, float | int | str) or value is None:
        return value
    if value is pd.NA or value is pd.NaT:
        return None
    plain = value.tolist() if hasattr(value, "tolist") else value
    # An array of arrays, as Parquet gives lists of lists, becomes a list of arrays.
    return [_plain_value(part) for part in plain] if isinstance(plain, list | tuple) else plain


def _item_by_id(record: Record) -> tuple[str, Item]:
    item = plain_item(record)
    return item.item_id, item
