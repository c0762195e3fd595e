"""Table model shared by the HTML, CSV, Markdown and LaTeX writers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from evaluate.stats.intervals import Estimate

Kind = Literal["", "reference", "part", "total", "chance", "published", "impossible"]
"""Kind of a row, for its style: an ordinary row, the reference, a part of the row above, ..."""

ColumnKind = Literal["figure", "name", "label", "words", "code"]
"""Kind of a column, for its style: numbers, short names, longer names, text, or commands and hashes."""

BETTER, WORSE = "▲", "▼"
"""Marks of a difference that is significant after Holm's correction."""

NAME_CHARACTERS, LABEL_CHARACTERS = 16, 32
"""Longest text in a column of short names, and in a column of longer names."""


@dataclass(frozen=True)
class TableCell:
    """One cell. Its text is untrusted: every writer escapes it for its own format.

    Attributes:
        value: The number that the text shows, for sorting and for CSV; None for words.
        low, high: Interval of `value`, or None.
        mark: `BETTER`, `WORSE` or empty.
        signed: Whether the interval shows plus signs (for differences).
        code: Whether the text is a command or a hash.
    """

    text: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    mark: str = ""
    signed: bool = False
    code: bool = False

    @property
    def interval(self) -> str:
        """The interval as text.

        >>> TableCell("0.500", 0.5, 0.25, 0.75).interval
        '[0.250, 0.750]'
        """
        if self.low is None or self.high is None:
            return ""
        form = _signed if self.signed else _plain
        return f"[{form(self.low)}, {form(self.high)}]"

    @property
    def full(self) -> str:
        """Text, interval and mark on one line."""
        return " ".join(part for part in (self.text, self.interval, self.mark) if part)


NONE = TableCell("–")
"""A missing value (not zero)."""

_NO_WORDS = ("–", "unknown")
"""Texts of cells without a value that may be in a column of figures."""


@dataclass(frozen=True)
class TableRow:
    """A row, with as many cells as the table has columns."""

    cells: tuple[TableCell, ...]
    kind: Kind = ""


@dataclass(frozen=True)
class Table:
    """A table with its title and caption.

    Attributes:
        name: Part of its file name.
        caption: Explanation of the figures, in full sentences.
    """

    kind: ClassVar[str] = "table"
    name: str
    title: str
    caption: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row.cells) != len(self.columns):
                raise ValueError(f"table {self.name!r}: {len(row.cells)} cells for {len(self.columns)} columns")

    @property
    def column_kinds(self) -> tuple[ColumnKind, ...]:
        """Kind of each column; the first one names the rows and is never a figure."""
        columns = list(zip(*(row.cells for row in self.rows), strict=True)) or [()] * len(self.columns)
        return tuple(_kind_of(cells, first=i == 0) for i, cells in enumerate(columns))


def _kind_of(cells: Sequence[TableCell], first: bool) -> ColumnKind:
    filled_in = [cell for cell in cells if cell.text not in _NO_WORDS]
    if not first and (not filled_in or any(cell.value is not None for cell in cells)):
        return "figure"
    if filled_in and all(cell.code for cell in filled_in):
        return "code"
    longest = max((len(cell.text) for cell in filled_in), default=0)
    return "name" if longest <= NAME_CHARACTERS else "label" if longest <= LABEL_CHARACTERS else "words"


def word_cell(text: object) -> TableCell:
    """A cell of words."""
    return TableCell(str(text))


def code_cell(text: str) -> TableCell:
    """A command or a hash."""
    return TableCell(text, code=True)


def count_cell(number: int) -> TableCell:
    """A whole number.

    >>> count_cell(12345).text
    '12,345'
    """
    return TableCell(f"{number:,}", number)


def share_cell(part: int, whole: int) -> TableCell:
    """A count and its share of the whole; `NONE` if the whole is 0.

    >>> share_cell(3, 12).text, share_cell(0, 12).text, share_cell(0, 0).text
    ('3 (25%)', '0', '–')
    """
    if not whole:
        return NONE
    return TableCell(f"{part:,} ({_percent(part / whole)})" if part else "0", part / whole)


def estimate_cell(found: Estimate, mark: str = "") -> TableCell:
    """A mean with its interval."""
    return TableCell(_plain(found.mean), found.mean, found.low, found.high, mark)


def difference_cell(found: Estimate, mark: str = "") -> TableCell:
    """A difference with its interval, always with signs."""
    return TableCell(_signed(found.mean), found.mean, found.low, found.high, mark, signed=True)


def figure_cell(value: float, digits: int = 3) -> TableCell:
    """A number without an interval."""
    return TableCell(f"{value:,.{digits}f}", value)


def probability_cell(p: float) -> TableCell:
    """A p-value; small ones are shown as `< .001`.

    >>> probability_cell(0.0004).text, probability_cell(0.0432).text
    ('< .001', '0.043')
    """
    return TableCell("< .001" if p < 0.001 else f"{p:.3f}", p)


def dollars_cell(usd: float | None, calls: int, at_least: bool = False) -> TableCell:
    """A price; `unknown` if calls have no known price, and `NONE` if there were no calls.

    >>> dollars_cell(None, 3).text, dollars_cell(None, 0).text
    ('unknown', '–')
    >>> dollars_cell(0.25, 3).text, dollars_cell(0.25, 3, at_least=True).text
    ('$0.2500', '≥ $0.2500')
    >>> dollars_cell(-0.25, 1).text, dollars_cell(-0.00001, 1).text
    ('−$0.2500', '$0.0000')
    """
    if usd is None:
        return TableCell("unknown") if calls else NONE
    sign = "−" if round(usd, 4) < 0 else ""
    return TableCell(f"{'≥ ' if at_least else ''}{sign}${abs(usd):,.4f}", usd)


def table_row(*cells: TableCell, kind: Kind = "") -> TableRow:
    """A row of cells."""
    return TableRow(cells, kind)


def filled(first: Sequence[TableCell], width: int, kind: Kind = "") -> TableRow:
    """A row whose remaining cells are `NONE`."""
    return TableRow((*first, *[NONE] * (width - len(first))), kind)


def _percent(value: float) -> str:
    return f"{value:.0%}" if value >= 0.1 else f"{value:.1%}"


def _plain(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
