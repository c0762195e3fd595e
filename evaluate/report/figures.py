"""The plots, as plotly figures without colours of text or ground: the page gives them the reader's theme."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence

import numpy as np
import plotly.graph_objects as go

from evaluate.report.ranker_runs import RankerRuns
from evaluate.report.slices import Slicing
from evaluate.report.table import Table
from evaluate.stats.metrics import chance

COLOURS = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9",
    "#8b5cf6", "#e11d48", "#64748b", "#65a30d", "#14b8a6", "#a8563a",
)  # fmt: skip
"""Apart for colour-blind eyes as far as so many can be, with symbols for what is left (the first four after Okabe and
Ito), and readable on light and dark ground."""

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x", "triangle-down", "star", "pentagon", "hexagon")

CHANCE = {"color": "#888888", "dash": "dash", "width": 1.5}

MOST_STEPS = 200
"""Points of a cumulative curve; longer lists are sampled, on a logarithmic axis."""


def looks(labels: Sequence[str]) -> dict[str, dict[str, str]]:
    """Colour and symbol of every ranker, the same in all plots of a report."""
    return {
        label: {"color": COLOURS[i % len(COLOURS)], "symbol": SYMBOLS[(i + i // len(COLOURS)) % len(SYMBOLS)]}
        for i, label in enumerate(labels)
    }


def as_json(figure: go.Figure) -> dict[str, object]:
    """What Plotly.newPlot takes; without plotly's default template, which is larger than the plots."""
    figure.update_layout(template="none")
    return json.loads(figure.to_json())


def accuracy(groups: Sequence[RankerRuns], main: Table, marks: Mapping[str, Mapping[str, str]]) -> go.Figure:
    """HR@5 of every ranker with its interval, read from the main table so that both say the same."""
    size = groups[0].size
    rows = [row for row in main.rows if row.kind != "chance" and row.cells[1].value is not None][::-1]
    figure = go.Figure()
    for row in rows:
        label, cell = row.cells[0].text, row.cells[1]
        ranker = next(
            (g.label for g in groups if label == g.label or label.startswith((f"{g.label}: ", f"{g.label} ("))), ""
        )
        look = marks.get(ranker, {"color": COLOURS[0], "symbol": "circle"})
        value = cell.value or 0.0
        figure.add_scatter(
            x=[value],
            y=[_plain(label)],
            error_x={
                "type": "data",
                "symmetric": False,
                "array": [(cell.high if cell.high is not None else value) - value],
                "arrayminus": [value - (cell.low if cell.low is not None else value)],
            },
            mode="markers",
            marker={**look, "size": 7 if row.kind == "part" else 10, "opacity": 0.7 if row.kind == "part" else 1.0},
            name=_plain(label),
            showlegend=False,
            hovertemplate="%{y}<br>%{x:.3f}<extra></extra>",
        )
    figure.add_vline(x=chance(size)["HR@5"], line=CHANCE)
    figure.update_layout(height=90 + 30 * len(rows), margin={"l": 10, "r": 20, "t": 10, "b": 40})
    figure.update_xaxes(title=f"HR@5/{size}, 95% interval; dashed: chance", rangemode="tozero")
    return figure.update_yaxes(automargin=True, type="category")


def cumulative(groups: Sequence[RankerRuns], marks: Mapping[str, Mapping[str, str]]) -> go.Figure:
    """Share of held-out items within the first r places, for every r: HR at all cutoffs at once."""
    size = groups[0].size
    places = np.arange(1, size + 1)
    if size > MOST_STEPS:
        places = np.unique(np.geomspace(1, size, MOST_STEPS).astype(int))
    figure = go.Figure()
    figure.add_scatter(
        x=places, y=places / size, mode="lines", name="chance", line={**CHANCE, "shape": "hv"}, hoverinfo="skip"
    )
    for group in groups:
        ranks = np.sort(np.array([rank for run in group.runs for rank in run.ranks.values()]))
        figure.add_scatter(
            x=places,
            y=np.round(np.searchsorted(ranks, places, side="right") / len(ranks), 5),
            mode="lines",
            name=_plain(group.label),
            line={"color": marks[group.label]["color"], "shape": "hv", "width": 2},
            hovertemplate="first %{x}: %{y:.3f}",
        )
    figure.update_layout(height=430, hovermode="x unified", margin={"l": 55, "r": 20, "t": 10, "b": 45})
    figure.update_xaxes(title=f"r, place in the list of {size:,}", type="log" if size > MOST_STEPS else "linear")
    return figure.update_yaxes(title="share of held-out items at rank ≤ r", range=[0, 1.02])


def sliced(slicing: Slicing, groups: Sequence[RankerRuns], marks: Mapping[str, Mapping[str, str]]) -> go.Figure:
    """HR@5 by slice; rankers stand a little beside each other so that intervals do not cover each other."""
    size = groups[0].size
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
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [found.high - found.mean for _, _, found in points],
                "arrayminus": [found.mean - found.low for _, _, found in points],
                "width": 2,
                "thickness": 1,
            },
            text=[f"{_plain(each.name)}, n = {found.n:,}" for _, each, found in points],
            mode="lines+markers" if len(slicing.slices) > 2 else "markers",
            line={"width": 1},
            marker={**marks[group.label], "size": 8},
            name=_plain(group.label),
            hovertemplate="%{text}<br>%{y:.3f}",
        )
    figure.add_hline(y=chance(size)["HR@5"], line=CHANCE)
    figure.update_layout(height=420, margin={"l": 55, "r": 20, "t": 10, "b": 75})
    figure.update_xaxes(
        title={"text": _plain(slicing.by), "standoff": 12},
        tickvals=list(range(len(slicing.slices))),
        ticktext=[_plain(each.name).replace(" (", "<br>(") for each in slicing.slices],
        range=[-0.5, len(slicing.slices) - 0.5],
        zeroline=False,
    )
    return figure.update_yaxes(title=f"HR@5/{size}; dashed: chance", rangemode="tozero")


def _plain(text: str) -> str:
    """Plotly reads a small HTML in its texts; names are to be read as they are."""
    return html.escape(text, quote=False)
