"""Validated fields of a record; every function takes a record and raises `FieldError` naming the field."""

from __future__ import annotations

import ast
import io
import json
import math
import tokenize
import warnings
from datetime import UTC, date, datetime
from itertools import pairwise

from evaluate.data.records.reading import FieldError, Record
from programs.runtime.errors import quoted
from signatures.types import Item

LONGEST_LITERAL = 20_000
"""Characters of a list written out in a cell; longer ones are read as text."""

NO_GENRES = "(no genres listed)"
"""What MovieLens writes in place of genres."""

LATEST_SECOND = 1e11
"""The year 5138: larger timestamps are not in seconds."""


def absent(value: object) -> bool:
    """Whether a value is missing: None, NaN or a blank string."""
    return value is None or value != value or (isinstance(value, str) and not value.strip())


def identifier(record: Record, *fields: str) -> str:
    """The first of `fields` that has a value, as an id; whole numbers become text.

    >>> identifier({"asin": 7}, "parent_asin", "asin")
    '7'

    Raises:
        FieldError: If all are missing, or the value is neither text nor a whole number.
    """
    for field in fields:
        value = record.get(field)
        if absent(value):
            continue
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise FieldError(f"field {field!r}: {quoted(value)} is not an id; give text or a whole number")
        if not _is_unicode(str(value)):
            raise FieldError(f"field {field!r}: {quoted(value)} is not valid Unicode")
        return str(value)
    raise FieldError(f"field {' or '.join(map(repr, fields))} is missing")


def number(record: Record, field: str) -> float | None:
    """A finite number, or None if missing; numbers written as text are read.

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
    raise FieldError(f"field {field!r}: {quoted(value)} is not a number")


def present(value: float | None, field: str) -> float:
    """`value`; a FieldError if it is missing."""
    if value is None:
        raise FieldError(f"field {field!r} is missing")
    return value


def rating(record: Record, field: str) -> float | None:
    """A rating from 0 to 5, or None if missing."""
    value = number(record, field)
    if value is not None and not 0 <= value <= 5:
        raise FieldError(f"field {field!r}: {value:g} is not between 0 and 5; rescale the ratings")
    return value


def seconds(record: Record, field: str, per_second: int | None = None, form: str | None = None) -> float | None:
    """A time in unix seconds, or None if missing; milliseconds and dates in ISO form are read as well.

    >>> seconds({"date": "2018-07-07 00:48:16"}, "date"), seconds({"time": 1530924496000}, "time")
    (1530924496.0, 1530924496.0)
    >>> seconds({"time": "11/15/2019 8:55:22 AM"}, "time", form="%m/%d/%Y %I:%M:%S %p")
    1573808122.0

    Args:
        per_second: Units of the field per second: 1000 for milliseconds. None: seconds, or milliseconds where seconds
            would be after the year 5138, which is every moment after 3 March 1973.
        form: Form of the field as `datetime.strptime` takes it; nothing else is then understood.
    """
    written = record.get(field)
    if form is not None:
        return None if absent(written) else _formed(str(written), field, form)
    if isinstance(written, str | date) and (moment := _date(written)) is not None:
        return moment
    try:
        value = number(record, field)
    except FieldError:
        example = "unix seconds or milliseconds, or a date such as 2018-07-07 00:48:16"
        raise FieldError(f"field {field!r}: {quoted(written)} is not a number and not a date; give {example}") from None
    if value is None:
        return None
    if per_second is None:
        per_second = 1000 if abs(value) > LATEST_SECOND else 1
    if abs(value) / per_second > LATEST_SECOND:
        raise FieldError(f"field {field!r}: {value:.0f} is not a time in unix seconds or milliseconds")
    return value / per_second


def _formed(written: str, field: str, form: str) -> float:
    try:
        moment = datetime.strptime(written.strip(), form)
    except ValueError:
        raise FieldError(f"field {field!r}: {quoted(written)} is not a time written as {form}") from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _date(value: str | date) -> float | None:
    """Unix seconds of a date such as 2018-07-07 00:48:16, in UTC unless it says otherwise; None for anything else."""
    text = value.isoformat() if isinstance(value, date) else value.strip()
    if "-" not in text[1:]:
        return None
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def reads_as_a_day(time: int) -> bool:
    """Whether the digits of a time are year, month and day.

    >>> [reads_as_a_day(time) for time in (20180707, 20181307, 1530921600, 1)]
    [True, False, False, False]
    """
    year, month, day = time // 10_000, time // 100 % 100, time % 100
    return 1900 <= year <= 2100 and 1 <= month <= 12 and 1 <= day <= 31


def text(record: Record, field: str) -> str:
    """A text on one line, empty if missing; a list of texts is joined.

    >>> text({"description": ["Two ", "lines\\n"]}, "description")
    'Two lines'
    """
    value = record.get(field)
    if absent(value):
        return ""
    parts = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(part, bool) or not isinstance(part, str | int | float | None) for part in parts):
        raise FieldError(f"field {field!r}: a {type(value).__name__} is not a text; give text or a list of texts")
    return clean_line(" ".join(str(part) for part in parts if not absent(part)))


def clean_line(value: str) -> str:
    """`value` with every run of white space as one blank; characters that are invalid in UTF-8 are replaced."""
    line = " ".join(value.split())
    return line if _is_unicode(line) else line.encode("utf-8", "replace").decode()


def _is_unicode(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def categories(record: Record, field: str) -> tuple[tuple[str, ...], ...]:
    """Category paths, root first, from any of the usual forms.

    A list of lists holds paths. A list of texts is one path, or one path per text if a text contains ` > `. A single
    text holds paths separated by `|`, with levels separated by ` > `.

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
    if isinstance(value, str) and (literal := written_list(value)) is not None:
        value = literal
    if isinstance(value, str):
        value = value.split("|")
        paths = [part.split(" > ") for part in value]
    elif not isinstance(value, list | tuple):
        raise FieldError(f"field {field!r}: a {type(value).__name__} is not a list of categories; give one, or a text")
    elif all(isinstance(part, str) for part in value):
        paths = [part.split(" > ") for part in value] if any(" > " in part for part in value) else [list(value)]
    else:
        paths = list(value)
    for path in paths:
        if not isinstance(path, list | tuple) or not all(isinstance(level, str) for level in path):
            raise FieldError(
                f"field {field!r}: {quoted(path)} is not a category path; give a list of texts, root first"
            )
    cleaned = (tuple(clean_line(level) for level in path if level.strip() not in ("", NO_GENRES)) for path in paths)
    return tuple(dict.fromkeys(path for path in cleaned if path))


def written_list(value: str) -> list[object] | None:
    """The list that a table's cell spells out in JSON, Python or numpy, as `to_csv` of a frame writes it, or None.

    >>> written_list("['Home', 'Rugs']"), written_list("[sale] Rugs")
    (['Home', 'Rugs'], None)
    """
    if (value[:1] + value[-1:]) not in ("[]", "()") or len(value) > LONGEST_LITERAL:
        return None
    for parse in (json.loads, python_literal):
        try:
            found = parse(value if parse is json.loads else _with_commas(value))
        except (ValueError, RecursionError):
            continue
        if isinstance(found, tuple) and not all(isinstance(one, str | list | tuple) for one in found):
            return None
        return list(found) if isinstance(found, list | tuple) else None
    return None


def _with_commas(value: str) -> str:
    """A list as numpy writes it with the commas it lacks: Python would read texts beside each other as one."""
    try:
        tokens = [token for token in tokenize.generate_tokens(io.StringIO(value).readline) if token.string.strip()]
    except (tokenize.TokenError, SyntaxError):
        return value
    texts = [token.type == tokenize.STRING for token in tokens]
    if not any(one and other for one, other in pairwise(texts)):
        return value
    after = [*texts[1:], False]
    return " ".join(
        token.string + "," * (text and other) for token, text, other in zip(tokens, texts, after, strict=True)
    )


def python_literal(text: str) -> object:
    """The value of a Python literal.

    Raises:
        ValueError: if it is none, or nested too deep.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # such as for a backslash that escapes nothing
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"not a Python literal: {error}") from None


def has_text(item: Item) -> bool:
    """Whether the item has a text that describes it; brand and price do not count."""
    return bool(item.title or item.description or item.categories or item.keywords)
