"""From files to lines and records, so that every error can say where it is.

Readers yield `(line, record)`; functions of `fields` take a record and raise `FieldError`; `parsed` joins the
two and turns a `FieldError` into an `InputError` that names file and line.
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

from programs.runtime.errors import InputError

Record = dict[str, object]
TABLE_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".jsonl", ".jsonl.gz")

_LONGEST_CELL = 1 << 30
"""Characters; Python's own limit of 131,072 is below what long descriptions have."""

RowT = TypeVar("RowT")
ParsedT = TypeVar("ParsedT")


class FieldError(ValueError):
    """A record cannot be used; says why. `parsed` adds the file and the line."""


def place(path: Path, line: int) -> str:
    """Where a record stands; Parquet files and frames have rows, everything else has lines. Both count from 1.

    >>> place(Path("items.jsonl.gz"), 3), place(Path("items.parquet"), 3)
    ('items.jsonl.gz, line 3', 'items.parquet, row 3')
    """
    return f"{path}, {'row' if path.suffix in ('', '.parquet') else 'line'} {line}"


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


def parsed(
    path: Path, rows: Iterable[tuple[int, RowT]], parse: Callable[[RowT], ParsedT]
) -> Iterator[tuple[int, ParsedT]]:
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


def read_records(path: Path, required: Sequence[str]) -> Iterator[tuple[int, Record]]:
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
                    f"{place(path, line)}: {len(values)} fields where the header has {len(header)}; "
                    "quote fields that contain a comma"
                )
            records += 1
            yield line, {name: value or None for name, value in zip(header, values, strict=True)}
    except csv.Error as error:
        raise InputError(f"{place(path, reader.line_num)}: not CSV: {error}") from None
    if not records:
        raise InputError(f"{path}: the file has a header and no rows")


def by_id(path: Path, rows: Iterable[tuple[int, tuple[str, ParsedT]]]) -> dict[str, ParsedT]:
    """Values by their id, from rows of `(line, (id, value))`.

    Raises:
        InputError: If an id comes twice; names both lines.
    """
    values: dict[str, ParsedT] = {}
    lines: dict[str, int] = {}
    for line, (key, value) in rows:
        if key in values:
            first = place(path, lines[key]).removeprefix(f"{path}, ")
            raise InputError(f"{place(path, line)}: id {key!r} was already given on {first}; keep one of the two")
        values[key], lines[key] = value, line
    return values
