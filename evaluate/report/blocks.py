"""Data model of a report page: tabs of blocks (tables, figures, lines, code, prompt diffs, folded parts).

A block says what is shown; `templates/blocks.html.j2` has one macro for each `kind`, which says how.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import plotly.graph_objects as go

from evaluate.report.prompt_diff import DiffSection, diff_sections
from evaluate.report.table import Table

DEFAULT_HEIGHT = 450
"""Pixels of a plot without a height in its layout."""


@dataclass(frozen=True)
class Lead:
    """The first sentence of a tab: its result in plain words."""

    kind: ClassVar[str] = "lead"
    text: str


@dataclass(frozen=True)
class Lines:
    """Sentences, one per line."""

    kind: ClassVar[str] = "lines"
    lines: Sequence[str]


@dataclass(frozen=True)
class Heading:
    """A heading above the next blocks."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Figure:
    """A plot with title and caption. The page adds legend, colours and text sizes."""

    kind: ClassVar[str] = "figure"
    title: str
    figure: go.Figure
    caption: str = ""

    @property
    def height(self) -> int:
        """Pixels to reserve before the plot is drawn."""
        return int(self.figure.layout.height or DEFAULT_HEIGHT)


@dataclass(frozen=True)
class Code:
    """Text shown as it is: a command, a configuration, a prompt."""

    kind: ClassVar[str] = "code"
    text: str
    title: str = ""


@dataclass(frozen=True)
class PromptDiff:
    """Two versions of a text in one, with removed and added lines and words marked."""

    kind: ClassVar[str] = "diff"
    title: str
    before: str
    after: str

    @property
    def sections(self) -> list[DiffSection]:
        """Its lines; long unchanged parts are sections of their own, to be folded."""
        return diff_sections(self.before, self.after)


@dataclass(frozen=True)
class Glossary:
    """Terms and what they mean."""

    kind: ClassVar[str] = "glossary"
    terms: Mapping[str, str]


@dataclass(frozen=True)
class Details:
    """Blocks that fold away under a summary.

    Attributes:
        note: Said beside the summary, as a badge.
    """

    kind: ClassVar[str] = "details"
    summary: str
    blocks: Sequence[Block]
    note: str = ""
    opened: bool = False


@dataclass(frozen=True)
class Notice:
    """Important blocks, shown with emphasis."""

    kind: ClassVar[str] = "notice"
    blocks: Sequence[Block]


@dataclass(frozen=True)
class PerProtocol:
    """Blocks that are shown when the reader selects their protocol (`Page.protocols`)."""

    kind: ClassVar[str] = "per-protocol"
    index: int
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True)
class View:
    """An interactive part, filled by the script that registers this name."""

    kind: ClassVar[str] = "view"
    name: str


Block: TypeAlias = (
    Table | Lead | Lines | Heading | Figure | Code | PromptDiff | Glossary | Details | Notice | PerProtocol | View
)


@dataclass(frozen=True)
class Tab:
    """A tab of a page.

    Attributes:
        name: Lower-case letters and digits; part of links and file names.
        per_protocol: Whether its content depends on the selected protocol.
    """

    name: str
    title: str
    blocks: Sequence[Block]
    per_protocol: bool = False

    @property
    def tables(self) -> list[Table]:
        """Its tables, in reading order."""
        return list(tables_in(self.blocks))


@dataclass(frozen=True)
class Page:
    """A report.

    Attributes:
        protocols: Names of the protocols that the reader can select; may be empty.
        data: JSON data for the scripts.
        scripts: Further script files of this package, run after `page.js`.
        warnings: Sentences that are shown above every tab.
    """

    title: str
    tabs: Sequence[Tab]
    protocols: Sequence[str] = ()
    data: Mapping[str, object] = field(default_factory=dict)
    scripts: Sequence[str] = ()
    warnings: Sequence[str] = ()


def tables_in(blocks: Sequence[Block]) -> Iterator[Table]:
    """All tables in reading order, with those of folded parts."""
    for block in blocks:
        if isinstance(block, Table):
            yield block
        elif isinstance(block, Details | Notice | PerProtocol):
            yield from tables_in(block.blocks)
