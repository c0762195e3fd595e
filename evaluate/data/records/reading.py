"""Readers of data files: lines and records with their line numbers, so that errors can name them.

Readers yield `(line, record)`; functions of `fields` take a record and raise `FieldError`; `parsed` applies one to the
other and turns a `FieldError` into an `InputError` that names file and line.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow
import pyarrow.parquet

from evaluate.data.records.column_names import recognized
from programs.runtime.errors import InputError

Record = dict[str, object]
TABLE_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")

_LONGEST_CELL = 1 << 30
"""Characters; Python's own limit of 131,072 is below what long descriptions have."""

RowT = TypeVar("RowT")
ParsedT = TypeVar("ParsedT")


class FieldError(ValueError):
    """A record is invalid; the message says why. `parsed` adds the file and the line."""


def location(path: Path, line: int) -> str:
    """File and line of a record (row for Parquet files and frames), counted from 1.

    >>> location(Path("items.jsonl.gz"), 3), location(Path("items.parquet"), 3)
    ('items.jsonl.gz, line 3', 'items.parquet, row 3')
    """
    return f"{path}, {'row' if path.suffix in ('', '.parquet') else 'line'} {line}"


def only_file(directory: Path, names: Iterable[str]) -> Path | None:
    """The file of `directory` with one of the names, or None.

    Raises:
        InputError: If there are several.
    """
    paths = [directory / name for name in names if (directory / name).is_file()]
    if len(paths) > 1:
        several = " and ".join(path.name for path in paths)
        raise InputError(f"{directory}: holds {several}, which is the same thing twice; keep one of them")
    return paths[0] if paths else None


def read_lines(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, str]]:
    """The lines of a text file, gzip-compressed if its name ends in `.gz`, with their numbers from 1.

    Lines end at a line feed; the line end (and a byte order mark) is removed.

    Raises:
        InputError: If the file cannot be read, is blank, is not text in `encoding`, or is not a valid gzip file
            although its name ends in `.gz`.
    """
    line, blank = 0, True
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            for line, raw in enumerate(stream, start=1):
                try:
                    text = raw.decode(encoding).rstrip("\r\n")
                except UnicodeDecodeError as error:
                    raise InputError(
                        f"{location(path, line)}: byte {error.start + 1} is not {encoding} text; "
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
    """`value` if it is an object (a dictionary); else a FieldError that names its type."""
    if not isinstance(value, dict):
        raise FieldError(f"not an object but {type(value).__name__}; every line must be one {{...}} object")
    return value


def parsed(
    path: Path, rows: Iterable[tuple[int, RowT]], parse: Callable[[RowT], ParsedT]
) -> Iterator[tuple[int, ParsedT]]:
    """`parse` of every row, with its line number.

    Raises:
        InputError: If `parse` raises a FieldError; names `path` and the line.
    """
    for line, row in rows:
        try:
            value = parse(row)
        except FieldError as error:
            raise InputError(f"{location(path, line)}: {error}") from None
        yield line, value


def read_objects(path: Path, parse: Callable[[str], Record] = json_object) -> Iterator[tuple[int, Record]]:
    """The objects of a file with one per line; blank lines are skipped."""
    return parsed(path, ((line, text) for line, text in read_lines(path) if text.strip()), parse)


def read_records(path: Path, required: Sequence[str]) -> Iterator[tuple[int, Record]]:
    """The records of a Parquet, CSV or JSON Lines file (the last two optionally `.gz`), by the file's name.

    An empty CSV field is None. The line of a CSV record is its first.

    Args:
        required: Columns that a Parquet or CSV file must have.

    Raises:
        InputError: If the file cannot be read in its format, has no records or lacks a required column.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path, required)
    if path.name.removesuffix(".gz").endswith(".csv"):
        return _read_csv(path, required)
    return read_objects(path)


def _require_columns(path: Path, columns: Sequence[str], required: Sequence[str]) -> None:
    names = recognized(columns, required)
    missing = [name for name in required if name not in names.values()]
    if missing:
        separator = next((mark for mark in ";\t|" if len(columns) == 1 and mark in columns[0]), None)
        hint = f"; its separator seems to be {separator!r}, save it with commas" if separator else ""
        raise InputError(f"{path}: missing column {', '.join(missing)}; it has {', '.join(columns)}{hint}")
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise InputError(f"{path}: column {', '.join(twice)} exists twice; keep one")


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
    csv.field_size_limit(_LONGEST_CELL)
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
                    f"{location(path, line)}: {len(values)} fields where the header has {len(header)}; "
                    "quote fields that contain a comma"
                )
            records += 1
            yield line, {name: value or None for name, value in zip(header, values, strict=True)}
    except csv.Error as error:
        raise InputError(f"{location(path, reader.line_num)}: not CSV: {error}") from None
    if not records:
        raise InputError(f"{path}: the file has a header and no rows")


def by_id(path: Path, rows: Iterable[tuple[int, tuple[str, ParsedT]]]) -> dict[str, ParsedT]:
    """Values by id, from rows of `(line, (id, value))`.

    Raises:
        InputError: If an id is repeated; names both lines.
    """
    values: dict[str, ParsedT] = {}
    lines: dict[str, int] = {}
    for line, (key, value) in rows:
        if key in values:
            first = location(path, lines[key]).removeprefix(f"{path}, ")
            raise InputError(f"{location(path, line)}: id {key!r} was already given on {first}; keep one of the two")
        values[key], lines[key] = value, line
    return values
