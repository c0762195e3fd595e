"""Plots of a study as plotly figures; the page adds the colours of text and background."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import plotly.graph_objects as go

from evaluate.report.blocks import Figure
from evaluate.report.ranker_runs import RankerRuns
from evaluate.report.slices import Slicing
from evaluate.report.table import Table, TableRow
from evaluate.stats.intervals import Estimate
from evaluate.stats.metrics import chance

Looks: TypeAlias = Mapping[str, Mapping[str, str]]
"""Colour and symbol by ranker."""

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#3a96d0",
    "#8b5cf6", "#e11d48", "#64748b", "#65a30d", "#0f9488", "#a8563a",
)  # fmt: skip
"""The first four are from the colour-blind palette of Okabe and Ito. All have a contrast of at least 3 on the page's
light and dark backgrounds."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star", "pentagon", "hexagon")
"""Symbols that `page.css` can draw in a legend."""

GREY = "#888888"

CHANCE = {"color": GREY, "dash": "dash", "width": 1.5}

MOST_STEPS = 200
"""Points of a cumulative curve; longer lists are sampled, on a logarithmic axis."""

LABEL_WIDTH = 26
"""Most characters in a line of a label beside a plot."""


def looks(labels: Sequence[str]) -> dict[str, dict[str, str]]:
    """Colour and symbol of every ranker, the same in all plots of a report."""
    return {
        label: {"color": COLOURS[i % len(COLOURS)], "symbol": SYMBOLS[(i + i // len(COLOURS)) % len(SYMBOLS)]}
        for i, label in enumerate(labels)
    }


def accuracy(groups: Sequence[RankerRuns], main: Table, marks: Looks) -> Figure:
    """HR@5 of every ranker with its interval, from the main table."""
    size = groups[0].size
    rows = [row for row in main.rows if row.kind != "chance" and row.cells[1].value is not None]
    figure = go.Figure([_dot(row, _look(row, groups, marks)) for row in rows])
    figure.add_vline(x=chance(size)["HR@5"], line=CHANCE)
    figure.update_xaxes(title=f"HR@5/{size}, 95% interval", rangemode="tozero")
    caption = "The first metric of the table above. The dashed line is chance."
    return Figure(f"HR@5/{size} by ranker", named_rows(figure, [row.cells[0].text for row in rows]), caption)


def named_rows(figure: go.Figure, labels: Sequence[str]) -> go.Figure:
    """Give a plot one row per label, the first on top, and set its height."""
    wrapped = [textwrap.wrap(label, LABEL_WIDTH) or [""] for label in labels]
    figure.update_yaxes(
        type="category",
        categoryorder="array",
        categoryarray=[escaped(label) for label in labels],
        range=[len(labels) - 0.5, -0.5],
        tickmode="array",
        tickvals=[escaped(label) for label in labels],
        ticktext=["<br>".join(map(escaped, lines)) for lines in wrapped],
    )
    height = 70 + len(labels) * (14 + 17 * max(map(len, wrapped), default=1))
    return figure.update_layout(height=height, margin={"l": 10, "r": 20, "t": 10, "b": 45})


def _look(row: TableRow, groups: Sequence[RankerRuns], marks: Looks) -> Mapping[str, str]:
    """Colour and symbol of the ranker that a row belongs to."""
    label = row.cells[0].text
    owner = (g.label for g in groups if label == g.label or label.startswith((f"{g.label}: ", f"{g.label} (")))
    return marks.get(next(owner, ""), {"color": COLOURS[0], "symbol": "circle"})


def _dot(row: TableRow, look: Mapping[str, str]) -> go.Scatter:
    name, cell = row.cells[:2]
    value = cell.value or 0.0
    part = row.kind == "part"
    return go.Scatter(
        x=[value],
        y=[escaped(name.text)],
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [(cell.high if cell.high is not None else value) - value],
            "arrayminus": [value - (cell.low if cell.low is not None else value)],
            "thickness": 1,
        },
        mode="markers",
        marker={**look, "size": 9 if part else 11, "opacity": 0.7 if part else 1.0},
        name=escaped(name.text),
        showlegend=False,
        hovertemplate="%{y}<br>%{x:.3f}<extra></extra>",
    )


def cumulative(groups: Sequence[RankerRuns], marks: Looks) -> Figure:
    """HR@r for every cutoff r: the share of held-out items at rank r or better."""
    size = groups[0].size
    cutoffs = np.arange(1, size + 1)
    if size > MOST_STEPS:
        cutoffs = np.unique(np.geomspace(1, size, MOST_STEPS).astype(int))
    figure = go.Figure()
    figure.add_scatter(
        x=cutoffs, y=cutoffs / size, mode="lines", name="chance", line={**CHANCE, "shape": "hv"}, hoverinfo="skip"
    )
    for group in groups:
        ranks = np.sort(np.array([rank for run in group.runs for rank in run.ranks.values()]))
        figure.add_scatter(
            x=cutoffs,
            y=np.round(np.searchsorted(ranks, cutoffs, side="right") / len(ranks), 5),
            mode="lines",
            name=escaped(group.label),
            line={"color": marks[group.label]["color"], "shape": "hv", "width": 2},
            hovertemplate="rank ≤ %{x}: %{y:.3f}",
        )
    figure.update_layout(height=430, hovermode="x unified", margin={"l": 55, "r": 20, "t": 10, "b": 45})
    figure.update_xaxes(title=f"rank r in the list of {size:,}", type="log" if size > MOST_STEPS else "linear")
    figure.update_yaxes(title="share at rank ≤ r", range=[0, 1.02])
    caption = (
        f"HR@r/{size}, the share of held-out items at rank r or better, for every cutoff r, over all draws and seeds. "
        "The dashed line is a random order."
    )
    return Figure(f"HR@r/{size} for every r", figure, caption)


def sliced(slicing: Slicing, groups: Sequence[RankerRuns], marks: Looks) -> Figure:
    """HR@5 by slice; the points of a slice are shifted a little, so that intervals do not overlap."""
    size = groups[0].size
    names = [each.name for each in slicing.slices]
    figure = go.Figure()
    for i, group in enumerate(groups):
        shift = (i - (len(groups) - 1) / 2) * 0.6 / max(1, len(groups))
        points = [
            (x, each, each.figures[group.label]["HR@5"])
            for x, each in enumerate(slicing.slices)
            if group.label in each.figures
        ]
        figure.add_scatter(
            x=[x + shift for x, _, _ in points],
            y=[found.mean for _, _, found in points],
            error_y=error_bars([found for _, _, found in points]),
            text=[f"{escaped(each.name)}, n = {found.n:,}" for _, each, found in points],
            mode="lines+markers" if len(names) > 2 else "markers",
            line={"width": 1},
            marker={**marks[group.label], "size": 8},
            name=escaped(group.label),
            hovertemplate="%{text}<br>%{y:.3f}",
        )
    figure.add_hline(y=chance(size)["HR@5"], line=CHANCE)
    figure.update_layout(height=420, margin={"l": 55, "r": 20, "t": 10, "b": 45})
    figure.update_xaxes(
        title={"text": escaped(slicing.by), "standoff": 12},
        ticklabelstandoff=6,
        tickvals=list(range(len(names))),
        ticktext=[escaped(name.partition(" (")[0]) for name in names],
        range=[-0.5, len(names) - 0.5],
        zeroline=False,
    )
    figure.update_yaxes(title=f"HR@5/{size}", rangemode="tozero")
    caption = f"{slicing.caption} 95% intervals; the dashed line is chance."
    return Figure(f"HR@5/{size} by {slicing.by}", figure, caption)


def pareto_line(x: Sequence[float | None], y: Sequence[float]) -> go.Scatter:
    """The line through the points of a Pareto front, with a ring around each."""
    return go.Scatter(
        x=list(x),
        y=list(y),
        mode="lines+markers",
        line={"shape": "hv", "color": GREY, "width": 1.5},
        marker={"symbol": "circle-open", "size": 17, "color": GREY},
        name="Pareto front",
        hoverinfo="skip",
    )


def error_bars(found: Sequence[Estimate]) -> dict[str, object]:
    """Intervals as error bars of plotly."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [each.high - each.mean for each in found],
        "arrayminus": [each.mean - each.low for each in found],
        "width": 2,
        "thickness": 1,
    }


def escaped(text: str) -> str:
    """The text with HTML escaped, because plotly interprets some HTML."""
    return html.escape(text, quote=False)
