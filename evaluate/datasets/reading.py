"""From files to validated fields and ordered interactions, so that every error can say where it is.

Readers yield `(line, record)`; field functions take a record and raise `FieldError`; `parsed` joins the
two and turns a `FieldError` into an `InputError` that names file and line.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

from evaluate.datasets.dataset import COLUMNS
from programs.errors import InputError
from signatures.types import Item

Record = dict[str, object]
TABLE_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")
LATEST_SECOND = 1e11
"""In the year 5138: a larger timestamp is not in seconds."""

Row = TypeVar("Row")
Parsed = TypeVar("Parsed")


class FieldError(ValueError):
    """A record cannot be used; says why. `parsed` adds the file and the line."""


def place(path: Path, line: int) -> str:
    """Where a record stands; Parquet has rows, everything else has lines. Both count from 1.

    >>> place(Path("items.jsonl.gz"), 3), place(Path("items.parquet"), 3)
    ('items.jsonl.gz, line 3', 'items.parquet, row 3')
    """
    return f"{path}, {'row' if path.suffix == '.parquet' else 'line'} {line}"


def only_file(directory: Path, names: Iterable[str]) -> Path | None:
    """The one file of `directory` that has one of `names`, or None.

    Raises:
        InputError: If there are several, because choosing one would be a guess.
    """
    found = [directory / name for name in names if (directory / name).is_file()]
    if len(found) > 1:
        several = " and ".join(path.name for path in found)
        raise InputError(f"{directory}: holds {several}, which is the same thing twice; keep one of them")
    return found[0] if found else None


# Lines


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """The lines of a text file, gzip-compressed if its name ends in `.gz`, with their numbers from 1.

    Lines end at a line feed; the line end (and a byte order mark) is removed.

    Raises:
        InputError: If the file cannot be read, is empty or blank, is no gzip or a truncated or damaged one,
            or is not text in `encoding`.
    """
    line, blank = 0, True
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            for line, raw in enumerate(stream, start=1):
                try:
                    text = raw.decode(encoding).rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{place(path, line)}: byte {error.start + 1} is not {encoding} text; "
                        f"save the file as {encoding} (a compressed file's name must end in .gz)"
                    ) from None
                blank = blank and not text.strip()
                yield line, text.removeprefix("\ufeff") if line == 1 else text
    except gzip.BadGzipFile as error:
        raise InputError(f"{path}: not a gzip file, or damaged ({error}); download or compress it again") from None
    except (EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: the gzip data is truncated or damaged after line {line} ({error}); download it again"
        ) from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    if blank:
        raise InputError(f"{path}: the file is empty")


def json_object(line: str) -> Record:
    """One line as a JSON object.

    >>> json_object('{"item_id": "a"}')
    {'item_id': 'a'}

    Raises:
        FieldError: If it is not JSON, or not an object.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FieldError(f"not JSON: {error}") from None
    return as_object(value)


def as_object(value: object) -> Record:
    """`value` if it is an object (a dictionary); otherwise a FieldError that says what it is."""
    if not isinstance(value, dict):
        raise FieldError(f"not an object but {type(value).__name__}; every line must be one {{...}} object")
    return value


def parsed(path: Path, rows: Iterable[tuple[int, Row]], parse: Callable[[Row], Parsed]) -> Iterator[tuple[int, Parsed]]:
    """`parse` of every row, with its line number.

    Raises:
        InputError: Where `parse` raised a FieldError; names `path` and the line.
    """
    for line, row in rows:
        try:
            value = parse(row)
        except FieldError as error:
            raise InputError(f"{place(path, line)}: {error}") from None
        yield line, value


# Records


def read_objects(path: Path, parse: Callable[[str], Record] = json_object) -> Iterator[tuple[int, Record]]:
    """The objects of a file with one per line; blank lines are skipped."""
    return parsed(path, ((line, text) for line, text in read_lines(path) if text.strip()), parse)


def read_table(path: Path, required: Sequence[str]) -> Iterator[tuple[int, Record]]:
    """The records of a Parquet, CSV or JSON-lines file (the last two optionally `.gz`), by the file's name.

    An empty CSV field is None. For a CSV record the line is the one it begins on.

    Args:
        required: Columns a Parquet or CSV file must have; in JSON lines every record speaks for itself.

    Raises:
        InputError: If the file cannot be read in its format, has no record or lacks a required column.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path, required)
    if path.name.removesuffix(".gz").endswith(".csv"):
        return _read_csv(path, required)
    return read_objects(path)


def _require_columns(path: Path, columns: Sequence[str], required: Sequence[str]) -> None:
    missing = [name for name in required if name not in columns]
    if missing:
        raise InputError(f"{path}: missing column {', '.join(missing)}; it has {', '.join(columns)}")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {', '.join(twice)} is there twice; keep one")


def _read_parquet(path: Path, required: Sequence[str]) -> Iterator[tuple[int, Record]]:
    try:
        table = pyarrow.parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {error}") from None
    names = table.column_names
    _require_columns(path, names, required)
    if table.num_rows == 0:
        raise InputError(f"{path}: the file has no rows")
    columns = [column.to_pylist() for column in table.columns]
    for row, values in enumerate(zip(*columns, strict=True), start=1):
        yield row, dict(zip(names, values, strict=True))


def _read_csv(path: Path, required: Sequence[str]) -> Iterator[tuple[int, Record]]:
    reader = csv.reader((text + "\n" for _, text in read_lines(path)), strict=True)
    header: list[str] | None = None
    records = 0
    start = 1
    try:
        for values in reader:
            line, start = start, reader.line_num + 1
            if not values:
                continue
            if header is None:
                header = [name.strip() for name in values]
                _require_columns(path, header, required)
                continue
            if len(values) != len(header):
                raise InputError(
                    f"{place(path, line)}: {len(values)} fields where the header has {len(header)}; "
                    "quote fields that contain a comma"
                )
            records += 1
            yield line, {name: value or None for name, value in zip(header, values, strict=True)}
    except csv.Error as error:
        raise InputError(f"{place(path, reader.line_num)}: not CSV: {error}") from None
    if not records:
        raise InputError(f"{path}: the file has a header and no rows")


def by_id(path: Path, rows: Iterable[tuple[int, tuple[str, Parsed]]]) -> dict[str, Parsed]:
    """Values by their id, from rows of `(line, (id, value))`.

    Raises:
        InputError: If an id comes twice; names both lines.
    """
    values: dict[str, Parsed] = {}
    lines: dict[str, int] = {}
    for line, (key, value) in rows:
        if key in values:
            first = place(path, lines[key]).removeprefix(f"{path}, ")
            raise InputError(f"{place(path, line)}: id {key!r} was already given on {first}; keep one of the two")
        values[key], lines[key] = value, line
    return values


# Fields


def absent(value: object) -> bool:
    """Whether a value stands for nothing: None, NaN or a blank string."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def identifier(record: Record, *fields: str) -> str:
    """The first of `fields` that is there, as a non-empty id; whole numbers are written out.

    >>> identifier({"asin": 7}, "parent_asin", "asin")
    '7'

    Raises:
        FieldError: If none is there, or it is neither text nor a whole number.
    """
    for field in fields:
        value = record.get(field)
        if absent(value):
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise FieldError(f"field {field!r}: {value!r} is no id; give text or a whole number")
        if not _is_unicode(str(value)):
            raise FieldError(f"field {field!r}: {value!r} is not valid Unicode")
        return str(value)
    raise FieldError(f"field {' or '.join(map(repr, fields))} is missing")


def number(record: Record, field: str) -> float | None:
    """A finite number, or None where absent; numbers written as text are read.

    >>> number({"price": "12.5"}, "price")
    12.5
    """
    value = record.get(field)
    if absent(value):
        return None
    if not isinstance(value, bool):
        try:
            result = float(value)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            result = math.nan
        if math.isfinite(result):
            return result
    raise FieldError(f"field {field!r}: {value!r} is not a number")


def present(value: float | None, field: str) -> float:
    """`value`, or a FieldError that `field` is missing."""
    if value is None:
        raise FieldError(f"field {field!r} is missing")
    return value


def rating(record: Record, field: str) -> float | None:
    """A rating from 0 to 5, or None where absent."""
    value = number(record, field)
    if value is not None and not 0 <= value <= 5:
        raise FieldError(f"field {field!r}: {value:g} is not between 0 and 5; rescale the ratings")
    return value


def seconds(record: Record, field: str, per_second: int = 1) -> float | None:
    """A time in unix seconds, or None where absent.

    Args:
        per_second: How many of the field's units make a second: 1000 for milliseconds.
    """
    value = number(record, field)
    if value is not None and abs(value) / per_second > LATEST_SECOND:
        raise FieldError(f"field {field!r}: {value:.0f} is no time in unix seconds (milliseconds?); divide by 1000")
    return None if value is None else value / per_second


def text(record: Record, field: str) -> str:
    """A text on one line, empty where absent; a list of texts is joined.

    >>> text({"description": ["Two ", "lines\\n"]}, "description")
    'Two lines'
    """
    value = record.get(field)
    if absent(value):
        return ""
    parts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(part, bool) or not isinstance(part, str | int | float | None) for part in parts):
        raise FieldError(f"field {field!r}: a {type(value).__name__} is no text; give text or a list of texts")
    return one_line(" ".join(str(part) for part in parts if not absent(part)))


def one_line(value: str) -> str:
    """`value` with every run of white space as one blank, and without what UTF-8 cannot hold."""
    line = " ".join(value.split())
    return line if _is_unicode(line) else line.encode("utf-8", "replace").decode()


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def categories(record: Record, field: str) -> tuple[tuple[str, ...], ...]:
    """Category paths, root first, from any of the forms in use.

    A list of lists holds paths. A list of texts is one path, unless a text contains ` > `: then each text
    is a path. One text holds paths separated by `|`, with levels separated by ` > `.

    >>> categories({"c": [["Toys", "Puzzles"], ["Gifts"]]}, "c")
    (('Toys', 'Puzzles'), ('Gifts',))
    >>> categories({"c": ["Toys", "Puzzles"]}, "c")
    (('Toys', 'Puzzles'),)
    >>> categories({"c": ["Toys > Puzzles", "Gifts"]}, "c") == categories({"c": "Toys > Puzzles|Gifts"}, "c")
    True

    Raises:
        FieldError: On any other form.
    """
    value = record.get(field)
    if absent(value):
        return ()
    if isinstance(value, str):
        value = value.split("|")
        paths = [part.split(" > ") for part in value]
    elif not isinstance(value, list | tuple):
        raise FieldError(f"field {field!r}: a {type(value).__name__} holds no categories; give a list or a text")
    elif all(isinstance(part, str) for part in value):
        paths = [part.split(" > ") for part in value] if any(" > " in part for part in value) else [list(value)]
    else:
        paths = list(value)
    for path in paths:
        if not isinstance(path, list | tuple) or not all(isinstance(level, str) for level in path):
            raise FieldError(f"field {field!r}: {path!r} is no category path; give a list of texts, root first")
    cleaned = (tuple(one_line(level) for level in path if level.strip()) for path in paths)
    return tuple(dict.fromkeys(path for path in cleaned if path))


def has_text(item: Item) -> bool:
    """Whether anything says what the item is; a brand or a price alone does not."""
    return bool(item.title or item.description or item.categories or item.keywords)


# Interactions


class Event(NamedTuple):
    """One interaction as a file has it.

    Attributes:
        timestamp: Unix seconds, fractions included: they decide the order.
        position: Place in the user's sequence, in any unit that sorts.
    """

    user_id: str
    item_id: str
    rating: float | None
    timestamp: float | None
    position: float | None = None


def check_known(path: Path, events: Sequence[tuple[int, Event]], items: Collection[str], listed_in: Path) -> None:
    """Every interaction's item is listed.

    Raises:
        InputError: Names the first interaction whose item is not, and says how many there are.
    """
    unknown = [(line, event.item_id) for line, event in events if event.item_id not in items]
    if unknown:
        line, item_id = unknown[0]
        raise InputError(
            f"{place(path, line)}: item {item_id!r} is not in {listed_in.name} "
            f"(interactions with unlisted items: {len(unknown):,}); list it there or remove them"
        )


def in_order(path: Path, events: Sequence[tuple[int, Event]]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The frame of `Dataset.interactions`, and what had to be decided for it.

    Within a user the order is that of the positions where given, otherwise of time, then of the file.
    Of several interactions of a user with one item the first in that order is kept.

    Args:
        path: The file the events come from, for messages.
        events: Interactions with their line numbers, in the file's order; not empty.

    Raises:
        InputError: If some events have a position (or, without positions, a timestamp) and others have none.
    """
    frame = pd.DataFrame([event for _, event in events], columns=list(COLUMNS))
    frame = frame.astype({"user_id": "str", "item_id": "str", **dict.fromkeys(COLUMNS[2:], "float64")})
    lines = np.array([line for line, _ in events])
    keys: list[str] = []
    for key in ("position", "timestamp"):
        given = frame[key].notna().to_numpy()
        if given.all():
            keys.append(key)
        elif given.any() and not keys:
            raise InputError(
                f"{place(path, int(lines[~given][0]))}: field {key!r} is missing here and given elsewhere, so the "
                "order of interactions is unknown; give it everywhere or nowhere"
            )
    # Ascending line numbers are the file's order; the multi-key sort alone does not promise stability.
    frame = frame.assign(line=lines).sort_values(["user_id", *keys, "line"], ignore_index=True)
    repeated = frame.duplicated(["user_id", "item_id"])
    frame = frame.loc[~repeated, list(COLUMNS)].reset_index(drop=True)
    frame["timestamp"] = np.floor(frame["timestamp"]).astype("Int64")
    frame["position"] = frame.groupby("user_id").cumcount()

    notes = [f"Order of a user's interactions: {', then '.join([*keys, 'order in the file'])}."]
    if repeated.any():
        notes.append(f"Repeated interactions of a user with the same item, first one kept: {repeated.sum():,} dropped.")
    unrated = int(frame["rating"].isna().sum())
    if unrated:
        notes.append(f"Interactions without a rating: {unrated:,} of {len(frame):,}.")
    return frame, tuple(notes)
