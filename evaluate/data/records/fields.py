"""From a record to validated fields; every function takes a record and raises `FieldError` naming the field."""

from __future__ import annotations

import math

from evaluate.data.records.reading import FieldError, Record
from signatures.types import Item

LATEST_SECOND = 1e11
"""In the year 5138: a larger timestamp is not in seconds."""


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
    return clean_line(" ".join(str(part) for part in parts if not absent(part)))


def clean_line(value: str) -> str:
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
    cleaned = (tuple(clean_line(level) for level in path if level.strip()) for path in paths)
    return tuple(dict.fromkeys(path for path in cleaned if path))


def has_text(item: Item) -> bool:
    """Whether anything says what the item is; a brand or a price alone does not."""
    return bool(item.title or item.description or item.categories or item.keywords)
