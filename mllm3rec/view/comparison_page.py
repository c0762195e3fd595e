"""The page of one or more runs: cost against accuracy, differences by pairs, their users, and notes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from os.path import commonpath
from pathlib import PurePosixPath
from typing import Any

import plotly.graph_objects as go
from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from evaluate.experiments.grid_results import front_of
from evaluate.experiments.grid_tab import PRIOR_ALONE
from evaluate.report.blocks import Figure
from evaluate.report.figures import COLOURS, GREY, error_bars, escaped, looks, pareto_line
from evaluate.runs.evaluation import of_metric
from evaluate.runs.run_metrics import paired_by_metric
from evaluate.stats.intervals import Difference, Estimate
from evaluate.stats.metrics import CUTOFFS
from mllm3rec.view.elements import (
    Cell,
    Place,
    TypedText,
    button,
    choice,
    field,
    figure,
    form,
    hidden_fields,
    in_dollars,
    link,
    pager,
    submit,
    table,
    tag,
    with_interval,
)
from mllm3rec.view.frame import Watched
from mllm3rec.view.library import Library
from mllm3rec.view.notes import RunNote
from mllm3rec.view.rows import UserFacts
from mllm3rec.view.run_facts import RunFacts, ViewedRun
from programs.runtime.errors import InputError, counted
from signatures.rows import Status, Usage

USERS_A_PAGE = 50
INDEX_SECONDS = 0.1
"""Time of a page for the index of a run's journal; a longer one is made while the page is shown."""

MOST_SHOWN = 12

COST_AXES = {
    "alone": "stand-alone dollars",
    "billed": "billed dollars",
    "seconds": "stand-alone seconds",
    "tokens": "tokens",
}
# The keys are in addresses that people keep.
USER_FILTERS = {
    "": "all users",
    "different": "different ranks",
    "won": "A hit and B missed",
    "lost": "B hit and A missed",
    "unreadable": "unparsable",
    "failed": "failed",
}


@dataclass(frozen=True)
class _Column:
    """One run in the comparison.

    Attributes:
        label: Its name without the folder that all runs lie in.
        alone: Stand-alone usage; None where a large ledger is not summed (yet).
        against: Difference to the first run, paired by user; None for the first, for other cases, and while `indexing`.
        indexing: Whether some users of this run or the first are not in the index yet: a difference would be without
            them.
    """

    run: ViewedRun
    facts: RunFacts
    label: str
    alone: Usage | None
    against: Difference | None
    indexing: bool


async def comparison_page(library: Library, place: Place) -> Watched:
    """Make the page."""
    names = place.several("run")
    if not names:
        raise InputError("no run was chosen; mark some in the list of runs")
    runs = [library.run(name) for name in names[:MOST_SHOWN]]
    indexed = await asyncio.to_thread(_indexed, runs)
    whole = all(indexed)
    metrics = await asyncio.to_thread(_metrics_of, runs)
    metric = place.one("metric", metrics[0] if metrics else "HR@5")
    columns = await asyncio.to_thread(_columns, runs, metric, indexed)
    tag("h1", columns[0].facts.name if len(columns) == 1 else f"Comparison of {len(columns)} runs")
    if len(names) > MOST_SHOWN:
        tag("p", f"Only the first {MOST_SHOWN} of {len(names)} runs are shown.", "soft")
    if len({one.facts.cases for one in columns}) > 1:
        tag("p", "These runs ranked different cases: their figures are shown, but no differences.", "error")
    _settings(place, metrics, metric, _cost_axis(place, columns))
    if len(columns) > 1:
        figure(_scatter(place, columns, metric), partial(_open_run, place, columns))
    _figures(place, columns, metric)
    _users(place, columns, metric, whole)
    _notes(library, columns)
    return partial(_state, library, runs, whole)


def _indexed(runs: Sequence[ViewedRun]) -> list[bool]:
    return [run.index(INDEX_SECONDS) for run in runs]


def _state(library: Library, runs: Sequence[ViewedRun], whole: bool) -> object:
    done = _indexed(runs)
    # An index may be complete before the first look at it: the page that was made before is renewed all the same.
    ripe = time.monotonic() if all(done) and not whole else None
    summed = [run.stand_alone() for run in runs]
    return [run.state_of_files for run in runs], done, ripe, summed, library.notes.read()


def _metrics_of(runs: Sequence[ViewedRun]) -> list[str]:
    return list(dict.fromkeys(name.partition("/")[0] for run in runs for name in run.facts().metrics))


def _columns(runs: Sequence[ViewedRun], metric: str, indexed: Sequence[bool]) -> list[_Column]:
    first = runs[0].facts()
    shared = _shared_folder([run.facts().name for run in runs])
    columns = []
    for run, whole in zip(runs, indexed, strict=True):
        facts = run.facts()
        paired = run is not runs[0] and facts.cases == first.cases and run.cases is not None
        indexing = paired and not (whole and indexed[0])
        against = _paired(run, runs[0], metric) if paired and not indexing else None
        label = facts.name.removeprefix(shared)
        columns.append(_Column(run, facts, label, run.stand_alone(wait=False), against, indexing))
    return columns


def _shared_folder(names: Sequence[str]) -> str:
    """The folder that all runs lie in, with a slash at its end; empty for one run, or if there is none.

    >>> _shared_folder(["study/warm/prior", "study/warm/learned"])
    'study/warm/'
    """
    folders = [str(PurePosixPath(name).parent) for name in names]
    shared = commonpath(folders) if len(names) > 1 else ""
    return f"{shared}/" if shared not in ("", ".") else ""


def _paired(run: ViewedRun, other: ViewedRun, metric: str) -> Difference | None:
    mine, theirs = run.rows.ranks(), other.rows.ranks()
    if not mine.keys() & theirs.keys():
        return None
    cutoffs = sorted({*CUTOFFS, _cutoff(metric)})
    return of_metric(paired_by_metric(mine, theirs, run.rows.list_size, cutoffs), metric)


def _cutoff(metric: str) -> int:
    """The cutoff in the name of a metric, which decides what a hit is."""
    number = metric.partition("@")[2]
    return int(number) if number.isdigit() else 5


def _cost_axis(place: Place, columns: Sequence[_Column]) -> str:
    """The cost asked for; without one, the first that is known of most runs: models on this machine have no price."""
    kind = place.one("cost")
    if kind in COST_AXES:
        return kind
    return max(COST_AXES, key=lambda axis: sum(_cost(one, axis) is not None for one in columns))


def _settings(place: Place, metrics: Sequence[str], metric: str, cost: str) -> None:
    with form("/compare", "what is shown"):
        hidden_fields(place, ("metric", "cost", "log", "page"))
        choice("Metric", "metric", [(name, name) for name in metrics], metric)
        choice("Cost", "cost", list(COST_AXES.items()), cost)
        choice("Axis of the cost", "log", [("", "linear"), ("1", "logarithmic")], place.one("log"))
        submit("Show")


def _cost(column: _Column, kind: str) -> float | None:
    """Cost for a thousand users; None where it is not known."""
    usage = column.facts.usage if kind == "billed" else column.alone
    if usage is None or not column.facts.users:
        return None
    if kind == "seconds":
        total: float | None = usage.seconds
    elif kind == "tokens":
        total = usage.tokens_in + usage.tokens_out
    else:
        total = usage.usd if usage.calls else 0.0
    return None if total is None else 1000 * total / column.facts.users


def _prior(columns: Sequence[_Column], metric: str) -> Estimate | None:
    """Of the run with most users: the prior is the same in all runs on the same cases."""
    return max(
        (found for one in columns if (found := one.facts.metric_of_prior(metric)) is not None),
        key=lambda found: found.n,
        default=next((one.facts.metric(metric) for one in columns if one.facts.ranker == "prior"), None),
    )


def _scatter(place: Place, columns: Sequence[_Column], metric: str) -> Figure:
    kind, log = _cost_axis(place, columns), place.one("log") == "1"
    found = [(one, value, _cost(one, kind)) for one in columns if (value := one.facts.metric(metric)) is not None]
    shown = [(one, value, cost) for one, value, cost in found if cost is not None and (cost > 0 or not log)]
    prior = _prior(columns, metric)
    plot = go.Figure()
    front = front_of({one.label: value.mean for one, value, _ in shown}, {one.label: cost for one, _, cost in shown})
    points = {one.label: (value.mean, cost) for one, value, cost in shown}
    if len(front) > 1:
        plot.add_trace(pareto_line([points[label][1] for label in front], [points[label][0] for label in front]))
    marks = looks([one.label for one in columns])
    for one, value, cost in shown:
        plot.add_scatter(
            x=[cost],
            y=[value.mean],
            error_y={**error_bars([value]), "color": marks[one.label]["color"]},
            mode="markers",
            marker={**marks[one.label], "size": 12},
            name=escaped(one.label),
            customdata=[one.facts.name],
            hovertemplate=f"{escaped(one.label)}<br>%{{x:.4g}}<br>%{{y:.3f}}<extra></extra>",
        )
    if prior is not None:
        plot.add_hline(y=prior.mean, line={"color": GREY, "dash": "dash", "width": 1.5})
        plot.add_hrect(y0=prior.low, y1=prior.high, fillcolor=GREY, opacity=0.12, line_width=0)
        plot.add_annotation(
            x=1, xref="paper", xanchor="right", y=prior.mean, yanchor="bottom", text=PRIOR_ALONE, showarrow=False
        )
    plot.update_layout(height=430, margin={"l": 55, "r": 20, "t": 40, "b": 50}, showlegend=True, colorway=COLOURS)
    plot.update_xaxes(title=f"{COST_AXES[kind]} for 1,000 users", type="log" if log else "linear")
    plot.update_yaxes(title=metric)
    if not log:
        plot.update_xaxes(rangemode="tozero")
    left_out = len(found) - len(shown)
    caption = (
        "Bars are 95% intervals. The line joins the runs that no other run beats in both cost and accuracy; the dashed "
        "line and its band are the prior alone, which asks no model. A click on a point opens its users. Stand-alone "
        "cost is as if there had been no cache hits."
    )
    if left_out:
        why = "cost is 0 or not known" if log else "cost is not known"
        caption += f" Not drawn: {left_out} of {len(found)} runs, because their {why}."
    return Figure(f"{metric} against {COST_AXES[kind]}", plot, caption)


def _open_run(place: Place, columns: Sequence[_Column], event: Any) -> None:
    for point in event.args.get("points", ()):
        name = point.get("customdata")
        if any(one.facts.name == name for one in columns):
            ui.navigate.to(place.here(a=name, page="", find="") + "#users")
            return


def _figures(place: Place, columns: Sequence[_Column], metric: str) -> None:
    rows: list[list[Cell]] = []
    for one in columns:
        facts = one.facts
        rows.append(
            [
                partial(_run_cell, place, columns, facts),
                facts.ranker,
                with_interval(facts.metric(metric)),
                "first run" if one is columns[0] else _difference(one, columns[0]),
                with_interval(of_metric(facts.against_prior, metric)),
                f"{facts.users:,}",
                f"{facts.failed:,}",
                f"{facts.unparsable:.1%}",
                in_dollars(facts.usage),
                "not summed" if one.alone is None else in_dollars(one.alone),
                facts.problem or facts.state,
            ]
        )
    prior = _prior(columns, metric)
    if prior is not None:
        rows.append([PRIOR_ALONE, "", with_interval(prior), "", "", f"{prior.n:,}", "", "", "", "", ""])
    heads = (
        "run", "ranker", f"{metric} [95% interval]", "minus the first run, paired", "minus the prior, paired", "users",
        "unresolved", "unparsable", "billed", "stand-alone", "state",
    )  # fmt: skip
    table("Figures of the runs", heads, rows, numbers=(2, 3, 4, 5, 6, 7, 8, 9))


def _difference(one: _Column, first: _Column) -> str:
    """The paired difference, with its users where they are fewer than those of both runs."""
    if one.indexing:
        return "indexing…"
    shown = with_interval(one.against)
    if one.against is not None and one.against.n < min(one.facts.users, first.facts.users):
        shown += f", n = {one.against.n:,}"
    return shown


def _run_cell(place: Place, columns: Sequence[_Column], facts: RunFacts) -> None:
    link(facts.name, place.here(run=facts.name, a="", b="", page=""))
    if len(columns) > 1:
        others = [one.facts.name for one in columns if one.facts.name != facts.name]
        tag("span", " ")
        link("leave out", place.here(run=others), "soft", aria_label=f"leave out {facts.name}")


def _users(place: Place, columns: Sequence[_Column], metric: str, whole: bool) -> None:
    tag("h2", "Users", id="users")
    if not whole:
        done = min(one.run.rows.indexed / max(1, one.run.rows.size) for one in columns)
        tag("p", f"{done:.0%} of the rows are in the index so far; a user can be found at once.", "soft", role="status")
    by_name = {one.facts.name: one for one in columns}
    a = by_name.get(place.one("a"), columns[0])
    b = by_name.get(place.one("b")) or next((one for one in columns if one is not a), None)
    with form("/compare", "which users are shown"):
        hidden_fields(place, ("a", "b", "show", "find", "page"))
        if len(columns) > 1:
            names = [(one.facts.name, one.label) for one in columns]
            choice("A", "a", names, a.facts.name)
            choice(
                "B",
                "b",
                [*names, ("prior", PRIOR_ALONE)],
                "prior" if place.one("b") == "prior" or b is None else b.facts.name,
            )
        else:
            tag("input", type="hidden", name="b", value="prior")
        choice("Show", "show", list(USER_FILTERS.items()), place.one("show"))
        field("Find a user", "find", place.one("find"), "search")
        submit("Show")
    against_prior = b is None or place.one("b") == "prior"
    page = max(1, place.number("page", 1))
    find = place.one("find").strip()
    if find and a.run.rows.find(find) is not None:
        with tag("p"):
            link(f"User {find}", _user_address(place, columns, find))
        return
    lines = _chosen(a, None if against_prior else b, place.one("show"), _cutoff(metric), find)
    heads = ["user", *(one.label for one in columns), PRIOR_ALONE, "status in A"]
    rows = [_line(place, columns, a, facts) for facts in lines[(page - 1) * USERS_A_PAGE : page * USERS_A_PAGE]]
    of_a = f"rank of the target by run; A is {a.label}, ranks that differ from its own are marked"
    table(f"{counted(len(lines), 'user')}: {of_a}", heads, rows, numbers=range(1, len(columns) + 2))
    if a.run.cases is None:
        tag("p", "Ranks are not known without the cases file: name it with --cases.", "soft")
    pager(place, page, USERS_A_PAGE, len(lines))


def _chosen(a: _Column, b: _Column | None, show: str, k: int, find: str) -> list[UserFacts]:
    """The users of A that fit the filter; without B, A is compared with the prior alone."""
    users = a.run.rows.users()
    if find:
        users = [one for one in users if find.lower() in one.user_id.lower()]
    if show == "unreadable":
        return [one for one in users if one.status is Status.UNPARSABLE]
    if show == "failed":
        return [one for one in users if one.status is Status.FAILED]
    if show not in ("different", "won", "lost"):
        return users
    theirs = a.run.rows.ranks(of_prior=True) if b is None else b.run.rows.ranks()
    chosen = []
    for one in users:
        other = theirs.get(one.user_id, 0)
        if not (one.rank and other):
            continue
        fits = {"different": one.rank != other, "won": one.rank <= k < other, "lost": other <= k < one.rank}
        if fits[show]:
            chosen.append(one)
    return chosen


def _line(place: Place, columns: Sequence[_Column], a: _Column, facts: UserFacts) -> list[Cell]:
    ranks = [found.rank if (found := one.run.rows.facts(facts.user_id)) else 0 for one in columns]
    cells: list[Cell] = [partial(link, facts.user_id, _user_address(place, columns, facts.user_id))]
    for one, rank in zip(columns, ranks, strict=True):
        differs = one is not a and rank != facts.rank
        cells.append(partial(tag, "span", rank or "–", "differs" if differs else ""))
    return [*cells, str(facts.prior_rank or "–"), facts.status.value]


def _user_address(place: Place, columns: Sequence[_Column], user: str) -> str:
    return place.to("/user", run=[one.facts.name for one in columns], user=user, metric=place.one("metric"))


def _notes(library: Library, columns: Sequence[_Column]) -> None:
    tag("h2", "Tags and notes")
    notes = library.notes.read()
    for one in columns:
        known = notes.get(one.facts.name, RunNote())
        with tag("div", classes="bar", role="group", aria_label=f"tags and note of {one.facts.name}"):
            tags = TypedText(f"Tags of {one.facts.name}, with commas", ", ".join(known.tags))
            note = TypedText(f"Note on {one.facts.name}", known.note)
            name = one.facts.name
            said = tag("span", "", "soft", role="status")
            button("Keep", partial(_keep, library, name, tags, note, said), "plain", aria_label=f"keep those of {name}")


def _keep(library: Library, run: str, tags: TypedText, note: TypedText, said: TextElement) -> None:
    try:
        library.notes.write(run, RunNote.written(note.value, tags.value))
        said.text = "kept"
    except InputError as error:
        said.text = str(error)
