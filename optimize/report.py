"""The story of a compile as one HTML file that needs nothing else: plots, and the prompts that won next to the old."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from itertools import accumulate

import optuna
import plotly.graph_objects as go

from optimize.artifact import ArtifactManifest
from optimize.prompts import Prompt
from optimize.search import Attempt, pareto_front

_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1100px;padding:0 1rem;color:#222}"
    "table{border-collapse:collapse;width:100%}td,th{border:1px solid #ccc;padding:.4rem;vertical-align:top;"
    "text-align:left}pre{white-space:pre-wrap;overflow-wrap:anywhere;font-size:13px;margin:0}"
    ".two{display:grid;grid-template-columns:1fr 1fr;gap:1rem}@media(max-width:700px){.two{grid-template-columns:1fr}}"
)
_COLOURS = {"COMPLETE": "#1f77b4", "PRUNED": "#bbbbbb", "FAIL": "#d62728"}


def report(
    manifest: ArtifactManifest,
    attempts: Sequence[Attempt],
    unit: str,
    before: Mapping[str, Prompt],
    after: Mapping[str, Prompt],
    importances: Mapping[str, float],
) -> str:
    """The whole page.

    Args:
        unit: What `Attempt.cost` is in.
        before, after: Prompts of the uncompiled program and of the winner.
        importances: Share of each parameter in the variation of the score; may be empty.
    """
    figures = [_by_trial(attempts), _by_cost(attempts, unit)]
    if importances:
        figures.append(_by_parameter(importances))
    plots = "".join(
        figure.to_html(full_html=False, include_plotlyjs="inline" if first else False)
        for first, figure in zip([True, False, False], figures, strict=False)
    )
    verdict = manifest.verdict
    gain = verdict.difference["score"]
    summary = (
        f"<p>On {gain.n} dev shoppers the search had not seen the winner is <b>{verdict.judgement}</b> than the "
        f"uncompiled program: score {verdict.before['score'].mean:.3f} before, {verdict.after['score'].mean:.3f} "
        f"after, difference {gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}].</p>"
    )
    parts = "".join(
        f"<tr><td>{name}</td><td>{verdict.before[name].mean:.3f}</td><td>{verdict.after[name].mean:.3f}</td>"
        f"<td>{d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]</td><td>{d.n}</td></tr>"
        for name, d in verdict.difference.items()
    )
    table = (
        "<table><tr><th>held-out dev shoppers</th><th>before</th><th>after</th><th>difference</th><th>n</th></tr>"
        f"{parts}</table>"
    )
    prompts = "".join(_side_by_side(name, before[name], after[name]) for name in after if name in before)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>Compile</title><style>{_STYLE}</style>"
        f"<h1>Compile: {html.escape(manifest.optimizer)} on {html.escape(manifest.data.dataset)}</h1>"
        f"{summary}{table}{plots}<h2>Prompts: before and after</h2>{prompts}</html>"
    )


def importances_of(study: optuna.Study) -> dict[str, float]:
    """Share of each parameter in the variation of the score (PED-ANOVA); empty where there is too little to tell."""
    complete = [t for t in study.get_trials(deepcopy=False) if t.state is optuna.trial.TrialState.COMPLETE]
    if len(complete) < 4 or len({t.values[0] for t in complete}) < 2:
        return {}
    try:
        return optuna.importance.get_param_importances(
            study,
            evaluator=optuna.importance.PedAnovaImportanceEvaluator(),
            target=lambda trial: -trial.values[0],  # it explains what makes its target low
        )
    except (ValueError, RuntimeError):  # no parameter that all trials share
        return {}


def _by_trial(attempts: Sequence[Attempt]) -> go.Figure:
    figure = go.Figure()
    for state, colour in _COLOURS.items():
        some = [a for a in attempts if a.state == state and a.scores]
        figure.add_scatter(
            x=[a.number for a in some],
            y=[a.score for a in some],
            mode="markers",
            name=state.lower(),
            marker={"color": colour, "size": 10},
            text=[_describe(a) for a in some],
            hovertemplate="trial %{x}<br>score %{y:.3f}<br>%{text}<extra></extra>",
        )
    complete = [a for a in attempts if a.state == "COMPLETE"]
    figure.add_scatter(
        x=[a.number for a in complete],
        y=list(accumulate((a.score for a in complete), max)),
        mode="lines",
        line={"shape": "hv", "color": "#2ca02c"},
        name="best so far",
    )
    return figure.update_layout(title="Score against trial", xaxis_title="trial", yaxis_title="mean score")


def _by_cost(attempts: Sequence[Attempt], unit: str) -> go.Figure:
    complete = [a for a in attempts if a.state == "COMPLETE"]
    front = pareto_front(complete, unit)
    figure = go.Figure()
    figure.add_scatter(
        x=[a.cost(unit) for a in complete],
        y=[a.score for a in complete],
        mode="markers+text",
        text=[str(a.number) for a in complete],
        textposition="top center",
        name="trials",
    )
    figure.add_scatter(
        x=[a.cost(unit) for a in front],
        y=[a.score for a in front],
        mode="lines",
        line={"shape": "hv", "color": "#d62728"},
        name="Pareto front",
    )
    what = "dollars" if unit == "usd" else unit
    return figure.update_layout(
        title=f"Score against {what} per shopper (MOPE and MAR)",
        xaxis_title=f"{what} per shopper",
        yaxis_title="mean score",
    )


def _by_parameter(importances: Mapping[str, float]) -> go.Figure:
    names = list(importances)[::-1]
    figure = go.Figure(go.Bar(x=[importances[name] for name in names], y=names, orientation="h"))
    return figure.update_layout(title="What each parameter contributes to the score (PED-ANOVA)")


def _describe(attempt: Attempt) -> str:
    chosen = attempt.configuration
    named = {f"{m} demos": n for m, n in chosen.demos.items()} | {f"{m} wording": n for m, n in chosen.wordings.items()}
    return "<br>".join(
        [chosen.family, *(f"{k}: {v}" for k, v in named.items()), f"weight {chosen.weight:g}", *chosen.models.values()]
    )


def _side_by_side(name: str, before: Prompt, after: Prompt) -> str:
    same = " (unchanged)" if before == after else ""
    cells = "".join(
        f"<div><h4>{title}</h4><pre>{html.escape(_prompt_text(prompt))}</pre></div>"
        for title, prompt in (("original", before), ("winner", after))
    )
    return f"<details{'' if same else ' open'}><summary><b>{html.escape(name)}</b>{same}</summary>" + (
        f"<div class='two'>{cells}</div></details>"
    )


def _prompt_text(prompt: Prompt) -> str:
    demos = "\n\n".join(
        "\n".join(
            f"{field}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
            for field, value in demo.items()
        )
        for demo in prompt.demos
    )
    return f"{prompt.instructions}\n\n--- {len(prompt.demos)} demonstrations ---\n{demos}"
