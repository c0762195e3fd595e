"""Elements of the pages: plain HTML tags whose contents are always text, links that keep the page's state, tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import plotly.graph_objects as go
from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement
from nicegui.events import GenericEventArguments
from pydantic_core import to_json
from starlette.datastructures import QueryParams

from evaluate.report.blocks import Figure
from evaluate.report.prompt_diff import diff_sections
from evaluate.report.table import difference_cell, dollars_cell, estimate_cell
from evaluate.stats.intervals import Difference, Estimate
from signatures.rows import Usage

KEPT_EVERYWHERE = ("theme",)


def tag(element: str, text: object = "", classes: str = "", **attributes: object) -> TextElement:
    """An HTML element with a text, which is never read as HTML.

    Args:
        attributes: `_` stands for `-`; a trailing `_` is dropped (`for_`). None and False leave an attribute out.
    """
    made = TextElement(tag=element, text=str(text))
    if classes:
        made.classes(classes)
    for key, value in attributes.items():
        if value is not None and value is not False:
            made.props[key.rstrip("_").replace("_", "-")] = "" if value is True else str(value)
    return made


@dataclass(frozen=True)
class Place:
    """Where the reader is: path and query of the page's address, which hold all of its state."""

    path: str
    query: QueryParams

    def one(self, name: str, default: str = "") -> str:
        """A parameter."""
        return self.query.get(name, default)

    def several(self, name: str) -> list[str]:
        """A parameter that may be repeated, without repetitions."""
        return list(dict.fromkeys(self.query.getlist(name)))

    def number(self, name: str, default: int) -> int:
        """A parameter that is a whole number; anything else counts as the default."""
        try:
            return int(self.query.get(name, default))
        except ValueError:
            return default

    def to(self, path: str, **parameters: object) -> str:
        """The address of another page; lists are repeated, empty values left out."""
        kept = {name: self.one(name) for name in KEPT_EVERYWHERE}
        return _address(path, kept | parameters)

    def here(self, **changes: object) -> str:
        """The address of this page with some parameters changed."""
        return _address(self.path, {name: self.several(name) for name in self.query} | changes)


def _address(path: str, parameters: dict[str, Any]) -> str:
    given = {name: value for name, value in parameters.items() if value not in ("", None, [], ())}
    return f"{path}?{urlencode(given, doseq=True)}" if given else path


def link(text: object, address: str, classes: str = "", **attributes: Any) -> TextElement:
    """A link within the view."""
    return tag("a", text, classes, href=address, **attributes)


def hidden_fields(place: Place, but: Sequence[str]) -> None:
    """Fields of a form that keep the page's other parameters."""
    for name in place.query:
        if name not in but:
            for value in place.several(name):
                tag("input", type="hidden", name=name, value=value)


def field(label: str, name: str, value: str = "", kind: str = "text", **attributes: Any) -> None:
    """A field of a form with its label."""
    with tag("label", classes="field"):
        tag("span", label)
        tag("input", type=kind, name=name, value=value, **attributes)


def choice(label: str, name: str, options: Sequence[tuple[str, str]], chosen: str) -> None:
    """A list to choose from, with its label; options are values and texts."""
    with tag("label", classes="field"):
        tag("span", label)
        with tag("select", name=name):
            for value, text in options:
                tag("option", text, value=value, selected=value == chosen)


def form(action: str, label: str) -> TextElement:
    """A form whose fields become the page's address."""
    return tag("form", classes="bar", action=action, method="get", aria_label=label)


class TypedText:
    """A field whose text the view knows while it is typed; in a form, its name also brings it into the address.

    Attributes:
        value: What stands in it now.
    """

    def __init__(self, label: str, value: str = "", element: str = "input", name: str | None = None) -> None:
        self.value = value
        with tag("label", classes="field wide" if element == "input" else "field whole"):
            tag("span", label)
            # A textarea shows its own text, an input its value.
            made = tag(element, value, name=name) if element == "textarea" else tag(element, value=value, type="text")
        self._element = made
        made.on("input", self._typed, js_handler="(event) => emit(event.target.value)")

    def write(self, value: str) -> None:
        """Replace what stands in the field."""
        self.value = value
        ui.run_javascript(f"getHtmlElement({self._element.id}).value = {to_json(value).decode()}")

    def _typed(self, event: GenericEventArguments) -> None:
        self.value = str(event.args)


def button(text: str, on_click: Callable[[], Any], classes: str = "", **attributes: Any) -> TextElement:
    """A button that does something in the view, other than the one of a form."""
    made = tag("button", text, classes, type="button", **attributes)
    made.on("click", lambda: on_click(), args=[])
    return made


def submit(text: str) -> None:
    """The button of a form."""
    tag("button", text, type="submit")


Cell = str | Callable[[], Any]
"""A text, or a function that makes the cell's content."""


def table(caption: str, columns: Sequence[Cell], rows: Iterable[Sequence[Cell]], numbers: Sequence[int] = ()) -> None:
    """A table in a region that scrolls by itself on narrow screens.

    Args:
        caption: Also the name of the region.
        numbers: Columns that are aligned to the right.
    """
    with tag("div", classes="scroll", role="region", aria_label=caption, tabindex=0), tag("table"):
        tag("caption", caption)
        with tag("thead"), tag("tr"):
            for place, cell in enumerate(columns):
                _cell("th", cell, place in numbers, scope="col")
        with tag("tbody"):
            for row in rows:
                with tag("tr"):
                    for place, cell in enumerate(row):
                        _cell("td", cell, place in numbers)


def _cell(name: str, cell: Cell, is_number: bool, **attributes: Any) -> None:
    classes = "number" if is_number else ""
    if isinstance(cell, str):
        tag(name, cell, classes, **attributes)
    else:
        with tag(name, classes=classes, **attributes):
            cell()


def with_interval(found: Estimate | None) -> str:
    """A mean or a difference with its interval; a dash where there is none."""
    if found is None:
        return "–"
    cell = difference_cell(found) if isinstance(found, Difference) else estimate_cell(found)
    return f"{cell.text} {cell.interval}"


def in_dollars(usage: Usage) -> str:
    """What was paid; `unknown` if calls have no known price."""
    return dollars_cell(usage.usd, usage.calls).text


def dollars_of(usd: float | None) -> str:
    """The price of one call, which may be a small part of a cent."""
    return "price unknown" if usd is None else f"${usd:.6f}"


def details(summary: str) -> TextElement:
    """A part that opens on a click or on Enter; returns it, to be filled."""
    part = tag("details")
    with part:
        tag("summary", summary)
    return part


def figure(found: Figure, on_click: Callable[[Any], Any] | None = None) -> None:
    """A plot with title and caption; colours of text and background are those of the page."""
    plot: go.Figure = found.figure
    plot.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", hovermode="closest")
    plot.update_traces(textposition="top center", selector={"mode": "markers+text"})
    plot.update_layout(legend={"orientation": "h", "y": 1.12})
    plot.update_xaxes(gridcolor="rgba(128,128,128,0.25)", zeroline=False, automargin=True)
    plot.update_yaxes(gridcolor="rgba(128,128,128,0.25)", zeroline=False, automargin=True)
    with tag("figure"):
        tag("figcaption", found.title, "title")
        drawn = ui.plotly({**plot.to_dict(), "config": {"displayModeBar": False, "responsive": True}})
        drawn.classes("plot")
        if on_click is not None:
            drawn.on("plotly_click", on_click)
        tag("figcaption", found.caption, "caption")


def text_diff(name: str, before: str, after: str) -> None:
    """What changed from one text to the other, line by line, with changed words marked and a sign before each line.

    Args:
        name: Of the text, unique on the page.
    """
    with tag("div", classes="diff", role="region", aria_label=f"changes in {name}", tabindex=0):
        for section in diff_sections(before, after):
            if section.folded:
                tag("div", f"… {len(section.lines)} unchanged lines", "folded")
                continue
            for line in section.lines:
                with tag("div", classes=f"line {line.kind}"):
                    tag("span", f"{line.sign} ", "sign")
                    for text, changed in line.parts:
                        tag("mark" if changed else "span", text)


def pager(place: Place, page: int, size: int, total: int) -> None:
    """Links to the pages of a long list; its first page has the number 1."""
    last = max(1, -(-total // size))
    with tag("nav", classes="bar", aria_label="pages of the list"):
        if page > 1:
            link("← previous", place.here(page=page - 1))
        tag("span", f"page {page:,} of {last:,}, {total:,} in all")
        if page < last:
            link("next →", place.here(page=page + 1))
