"""Readers of data files: lines and records with their line numbers, so that errors can name them.

Readers yield `(line, record)`; functions of `fields` take a record and raise `FieldError`; `parsed` applies one to the
other and turns a `FieldError` into an `InputError` that names file and line.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pyarrow
import pyarrow.parquet

from evaluate.data.records.column_names import ALIASES, recognized
from programs.runtime.errors import InputError, abridged, listed, quoted

Record = dict[str, object]
TABLE_SUFFIXES = (".parquet", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".jsonl", ".jsonl.gz")

SEPARATORS = ",;\t|"
"""Of text tables; the one that splits the header into most columns is theirs."""

_ROWS_AT_ONCE = 10_000
"""Rows of a Parquet file in memory at once: a file of reviews and their images is larger than what is read of it."""

_LONGEST_CELL = 1 << 30
"""Characters; Python's own limit of 131,072 is below what long descriptions have."""

_LONGEST_LINE = 1 << 28
"""Bytes; a small compressed file may hold a line that no memory holds."""

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
            for line, raw in enumerate(iter(lambda: stream.readline(_LONGEST_LINE), b""), start=1):
                if len(raw) == _LONGEST_LINE:
                    raise InputError(
                        f"{location(path, line)}: longer than {_LONGEST_LINE >> 20} MB; is it a text file?"
                    )
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
        problem = "a number of thousands of digits" if "integer string" in str(error) else abridged(str(error))
        raise FieldError(f"not JSON: {problem}") from None
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


def read_records(
    path: Path, required: Sequence[str], mapped: Mapping[str, str] | None = None
) -> Iterator[tuple[int, Record]]:
    """The records of a Parquet, CSV, TSV or JSON Lines file (the last three optionally `.gz`), by the file's name.

    An empty CSV field is None. The line of a CSV record is its first.

    Args:
        required: Columns that a table must have, by our names.
        mapped: Their name of a column by ours, where it is given.

    Raises:
        InputError: If the file cannot be read in its format, has no records or lacks a required column.
    """
    if path.suffix == ".parquet":
        return _read_parquet(path, required, mapped)
    if _is_text_table(path):
        return _read_csv(path, required, mapped)
    return read_objects(path)


def _is_text_table(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith((".csv", ".tsv"))


def table_columns(path: Path) -> list[str] | None:
    """The names of the columns of a table; None for JSON Lines, which have none.

    Raises:
        InputError: If its header cannot be read.
    """
    if path.suffix == ".parquet":
        return _parquet_columns(path)
    if _is_text_table(path):
        return next((values for _, values in _csv_records(path)), [])
    return None


def table_problem(path: Path, required: Sequence[str], mapped: Mapping[str, str] | None = None) -> str | None:
    """What is wrong with the columns of a table, or None; see `column_problem`. JSON Lines have no columns.

    Raises:
        InputError: If its header cannot be read.
    """
    columns = table_columns(path)
    return None if columns is None else column_problem(path, columns, required, mapped)


def column_problem(
    path: Path, columns: Sequence[str], required: Sequence[str], mapped: Mapping[str, str] | None = None
) -> str | None:
    """What is wrong with the columns of a table, or None: one is missing, under its usual other names as well.

    Args:
        required: Our names of the columns that must be there.
        mapped: Their name of a column by ours, where it is given.
    """
    names = recognized(columns, required, mapped)
    missing = [name for name in required if name not in names.values()]
    if missing:
        hint = f"also understood: {', '.join(f'{other}' for n in missing for other in ALIASES[n][:4])}"
        naming = f"name yours with --columns {','.join(f'{name}=YOURS' for name in missing)}"
        return f"{path}: missing column {', '.join(missing)}; it has {listed(columns)}; {naming}; {hint}"
    twice = sorted(name for name, times in Counter(columns).items() if times > 1)
    return f"{path}: column {listed(twice)} exists twice; keep one" if twice else None


def _require_columns(
    path: Path, columns: Sequence[str], required: Sequence[str], mapped: Mapping[str, str] | None
) -> None:
    if (problem := column_problem(path, columns, required, mapped)) is not None:
        raise InputError(problem)


def _read_parquet(
    path: Path, required: Sequence[str], mapped: Mapping[str, str] | None
) -> Iterator[tuple[int, Record]]:
    _require_columns(path, _parquet_columns(path), required, mapped)
    row = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_ROWS_AT_ONCE):
                names, columns = batch.schema.names, [column.to_pylist() for column in batch.columns]
                for values in zip(*columns, strict=True):
                    row += 1
                    yield row, dict(zip(names, values, strict=True))
    # Values that Python has no type for (a date of the year 20000, a text that is not UTF-8) raise many errors.
    except Exception as error:
        raise InputError(f"{path}: not a readable Parquet file: {abridged(str(error))}") from None
    if not row:
        raise InputError(f"{path}: the file has no rows")


def _parquet_columns(path: Path) -> list[str]:
    try:
        names: list[str] = pyarrow.parquet.read_schema(path).names
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable Parquet file: {abridged(str(error))}") from None
    return names


def _read_csv(path: Path, required: Sequence[str], mapped: Mapping[str, str] | None) -> Iterator[tuple[int, Record]]:
    header: list[str] | None = None
    records = 0
    for line, values in _csv_records(path):
        if header is None:
            header = values
            _require_columns(path, header, required, mapped)
            continue
        if len(values) != len(header):
            raise InputError(
                f"{location(path, line)}: {len(values)} fields where the header has {len(header)}; "
                "quote fields that contain the separator"
            )
        records += 1
        yield line, {name: value or None for name, value in zip(header, values, strict=True)}
    if not records:
        raise InputError(f"{path}: the file has a header and no rows")


def _csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file with their first lines: the names of its columns first. Blank lines are skipped."""
    csv.field_size_limit(_LONGEST_CELL)
    lines = read_lines(path)
    first = next((text for _, text in read_lines(path) if text.strip()), "")
    reader = csv.reader((text + "\n" for _, text in lines), strict=True, delimiter=separator_of(first))
    header, start = True, 1
    try:
        for values in reader:
            line, start = start, reader.line_num + 1
            if values:
                yield line, [name.strip() for name in values] if header else values
                header = False
    except csv.Error as error:
        raise InputError(f"{location(path, reader.line_num)}: not CSV: {error}") from None


def separator_of(header: str) -> str:
    """The separator of a text table: the one that splits its header into most columns.

    >>> separator_of("user_id;item_id;rating"), separator_of('"item, or product",title'), separator_of("user_id")
    (';', ',', ',')
    """
    return max(SEPARATORS, key=lambda mark: len(next(csv.reader([header.replace("\r", " ")], delimiter=mark), [])))


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
            raise InputError(
                f"{location(path, line)}: id {quoted(key)} was already given on {first}; keep one of the two"
            )
        values[key], lines[key] = value, line
    return values
