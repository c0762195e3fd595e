"""Plots of a search: score by trial, score against cost with the Pareto front, parameter importance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate

import plotly.graph_objects as go

from evaluate.report import figures
from evaluate.report.blocks import Figure
from evaluate.report.figures import COLOURS, GREY, escaped, named_rows
from optimize.search import Attempt, pareto_front
from optimize.space import Configuration

WINNER = {"color": COLOURS[1], "symbol": "star", "size": 15}
STATES = {
    "COMPLETE": ("complete", {"color": COLOURS[0], "symbol": "circle", "size": 10}),
    "PRUNED": ("pruned", {"color": GREY, "symbol": "x", "size": 9}),
    "FAIL": ("failed", {"color": COLOURS[7], "symbol": "triangle-down", "size": 10}),
}
_MARGIN = {"l": 55, "r": 20, "t": 10, "b": 45}


def settings_of(chosen: Configuration) -> dict[str, str]:
    """A configuration as names and values, for tables and hover texts."""
    return {
        "family": chosen.family,
        **{f"{module} demos": name for module, name in chosen.demos.items()},
        **{f"{module} instruction": name for module, name in chosen.wordings.items()},
        "fusion weight": f"{chosen.weight:g}" if chosen.gate is None else "by the gate",
        **({} if chosen.gate is None else {"gate": chosen.gate.text}),
        **{f"{role} model": model for role, model in chosen.models.items()},
        **{f"{role} temperature": f"{value:g}" for role, value in chosen.temperatures.items()},
        **({} if chosen.prototypes is None else chosen.prototypes.described()),
    }


def by_trial(attempts: Sequence[Attempt], winner: int | None) -> Figure:
    """Score of every trial in order, and the best so far."""
    figure = go.Figure()
    complete = [a for a in attempts if a.state == "COMPLETE"]
    figure.add_scatter(
        x=[a.number for a in complete],
        y=list(accumulate((a.score for a in complete), max)),
        mode="lines",
        line={"shape": "hv", "color": COLOURS[2], "width": 2},
        name="best so far",
        hoverinfo="skip",
    )
    for state, (name, marker) in STATES.items():
        some = [a for a in attempts if a.state == state and a.scores and a.number != winner]
        if some:
            figure.add_scatter(**_points(some, [a.number for a in some]), marker=marker, name=name)
    best = [a for a in complete if a.number == winner]
    if best:
        figure.add_scatter(**_points(best, [a.number for a in best]), marker=WINNER, name="winner")
    figure.update_layout(height=380, margin=_MARGIN)
    figure.update_xaxes(title="trial", tickformat="d").update_yaxes(title="mean score")
    return Figure(
        "Score by trial", figure, "Trial 0 is the uncompiled program. Pruned trials scored only some of the users."
    )


def by_cost(attempts: Sequence[Attempt], unit: str, winner: int | None) -> Figure:
    """Score against cost of the complete trials, with the Pareto front."""
    complete = [a for a in attempts if a.state == "COMPLETE"]
    front = pareto_front(complete, unit)
    figure = go.Figure(figures.pareto_line([a.cost(unit) for a in front], [a.score for a in front]))
    for name, marker, some in (
        ("trials", STATES["COMPLETE"][1], [a for a in complete if a.number != winner]),
        ("winner", WINNER, [a for a in complete if a.number == winner]),
    ):
        if some:
            points = _points(some, [a.cost(unit) for a in some]) | {"mode": "markers+text"}
            figure.add_scatter(**points, text=[str(a.number) for a in some], marker=marker, name=name)
    cost = f"{'dollars' if unit == 'usd' else unit} per user"
    figure.update_layout(height=430, margin=_MARGIN)
    figure.update_xaxes(title=cost).update_yaxes(title="mean score")
    caption = (
        "Complete trials with their numbers. The line connects the trials that no other trial beats in both cost and "
        "score. The cost is that of MOPE and MAR: MOTE is paid once per item."
    )
    return Figure(f"Score against {cost}", figure, caption)


def by_parameter(importances: Mapping[str, float]) -> Figure:
    """Importance of each parameter."""
    names = [name.replace("_wording", " instruction").replace("_", " ") for name in importances]
    figure = go.Figure(
        go.Bar(
            x=list(importances.values()),
            y=[escaped(name) for name in names],
            orientation="h",
            marker={"color": COLOURS[0]},
            hovertemplate="%{y}: %{x:.0%}<extra></extra>",
        )
    )
    figure.update_xaxes(title="share of the variation of the score", tickformat=".0%", rangemode="tozero")
    caption = "By PED-ANOVA over the complete trials. With few trials the figures are rough."
    return Figure("Parameter importance", named_rows(figure, names), caption)


def _points(attempts: Sequence[Attempt], x: Sequence[float]) -> dict[str, object]:
    return {
        "x": list(x),
        "y": [a.score for a in attempts],
        "mode": "markers",
        "hovertext": ["<br>".join(f"{escaped(k)}: {escaped(v)}" for k, v in _hover(a).items()) for a in attempts],
        "hovertemplate": "%{hovertext}<extra></extra>",
    }


def _hover(attempt: Attempt) -> dict[str, str]:
    return {"trial": str(attempt.number), "score": f"{attempt.score:.3f}", **settings_of(attempt.configuration)}
