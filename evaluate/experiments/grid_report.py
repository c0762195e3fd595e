"""The comparison as part of the report: table, matrix and effects, scatter with the Pareto front, latencies, advice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go

from evaluate.data.dataset import Dataset
from evaluate.experiments.grid import Grid
from evaluate.experiments.grid_results import GridResults, MixRow, MixRun
from evaluate.paper.published_costs import recompute
from evaluate.protocol.cases import Cases
from evaluate.report.record import ProtocolRecord, RunRecord, StudyRecord
from evaluate.report.sections import Block, Tab
from evaluate.report.table import (
    BETTER,
    NONE,
    WORSE,
    Table,
    TableCell,
    count_cell,
    difference_cell,
    dollars_cell,
    estimate_cell,
    figure_cell,
    probability_cell,
    share_cell,
    table_row,
    word_cell,
)
from evaluate.report.write import write_report
from evaluate.runs.costs import once_each
from evaluate.runs.journal import RunManifest
from programs.lm.ledger import by_role, read_calls
from programs.lm.prices import price_table
from programs.prior.scorers import Popularity
from programs.runtime.atomic import write_atomically

RECORD = "comparison.json"
ALPHA = 0.05


def write_comparison(
    found: GridResults,
    grid: Grid,
    runs: Sequence[MixRun],
    case_file: Cases,
    data: Dataset,
    histories: Mapping[str, Sequence[str]],
    directory: Path,
    command: str,
    versions: Mapping[str, str],
) -> list[Path]:
    """Write `comparison.json` and the report, whose first tab is the comparison.

    Returns:
        The page first.
    """
    record = _record(grid, runs, case_file, data, histories, directory, command, versions)
    written = write_report(record, directory / "report", [Tab("mixes", "Mixes", blocks(found, grid))])
    path = directory / RECORD
    write_atomically(path, found.model_dump_json(indent=2).encode() + b"\n")
    return [*written, path]


def blocks(found: GridResults, grid: Grid) -> list[Block]:
    """What stands in the tab, in reading order."""
    lines = [] if found.recommendation is None else [str(found.recommendation)]
    out = [Block(lines=lines), Block(mix_table(found)), Block(figure=scatter(found, grid), caption=_SCATTER)]
    out += [Block(effect_table(found)), Block(matrix_table(found, grid)), Block(cost_table(found))]
    out.append(Block(figure=latencies(found), caption="Median and 95th percentile of answers really sent."))
    table = published_cost_table(found)
    return out if table is None else [*out, Block(table)]


_SCATTER = (
    "Each point is a mix; bars are 95% intervals. The line joins mixes no other is at once cheaper and better than. "
    "Cost is stand-alone: as if the mix had been run with nothing stored beforehand."
)


def mix_table(found: GridResults) -> Table:
    """Accuracy of every mix, against the reference."""
    metrics = next(list(one.metrics) for one in found.rows if one.metrics)
    columns = ["mix", "users", "unresolved", *(f"{m}/{found.list_size}" for m in metrics)]
    columns += [f"{metrics[0]} against {found.reference}", "p (Holm)", "loss", "unparsable", "stored", "scores from"]
    rows = []
    for one in found.rows:
        cells = [estimate_cell(one.metrics[m]) for m in metrics] if one.metrics else [NONE] * len(metrics)
        against = one.against.get(metrics[0])
        told: list[TableCell] = [NONE, NONE]
        if against is not None:
            mark = (BETTER if against.mean > 0 else WORSE) if (against.p_holm or 1) < ALPHA else ""
            told = [difference_cell(against, mark), probability_cell(against.p_holm or 1.0)]
        losses = found.recommendation.losses if found.recommendation else {}
        loss = figure_cell(losses[one.label].mean) if one.label in losses else NONE
        rows.append(
            table_row(
                word_cell(one.label),
                count_cell(one.users),
                word_cell(f"{one.unresolved}: {one.stopped}" if one.stopped else one.unresolved),
                *cells,
                *told,
                loss,
                TableCell(f"{one.unparsable:.1%}", one.unparsable),
                TableCell(f"{one.stored:.0%}", one.stored),
                word_cell(", ".join(f"{source} ({n})" for source, n in one.score_sources.items()) or "-"),
                kind="reference" if one.label == found.reference else "",
            )
        )
    caption = (
        "A mix is MOPE_MOTE_MAR, and the judge where it is not MAR's. Differences are paired by user, p-values of a "
        "randomization test, corrected by Holm over mixes and metrics. Unresolved users are no misses. Scores from "
        "log-probabilities and from written digits are different measurements: both accuracy and cost depend on it."
    )
    return Table("mixes", "Accuracy", caption, tuple(columns), tuple(rows))


def effect_table(found: GridResults) -> Table:
    """What changing one role's model does."""
    columns = ("role", "from", "to", "pairs of mixes", "gain", "dollars a user", "dollars a product", "seconds in all")
    rows = [
        table_row(
            word_cell(one.role),
            word_cell(one.before),
            word_cell(one.after),
            count_cell(one.mixes),
            difference_cell(one.gain),
            dollars_cell(one.usd_per_user, 1),
            dollars_cell(one.usd_per_product, 1),
            TableCell(f"{one.seconds:+,.0f}", one.seconds),
        )
        for one in found.effects
    ]
    metric = found.effects[0].metric if found.effects else "metric"
    caption = f"Mean over all pairs of mixes that differ in this role alone; gain is in {metric}, with 95% interval."
    return Table("effects", "What one role's model changes", caption, columns, tuple(rows))


def matrix_table(found: GridResults, grid: Grid) -> Table:
    """MAR's backends across, MOPE's and MOTE's down."""
    by_label = {one.label: one for one in found.rows}
    names = list(dict.fromkeys(mix.mar for mix in grid.mixes()))
    lines: dict[str, dict[str, MixRow]] = {}
    for mix in grid.mixes():
        judge = "" if mix.judge == mix.mar else f", judge {mix.judge}"
        one = by_label.get(mix.label)
        if one is not None and one.metrics:
            lines.setdefault(f"MOPE {mix.mope}, MOTE {mix.mote}{judge}", {})[mix.mar] = one
    rows = [
        table_row(
            word_cell(line),
            *(estimate_cell(cells[name].metrics[grid.metric]) if name in cells else NONE for name in names),
        )
        for line, cells in lines.items()
    ]
    title = f"{grid.metric}/{found.list_size} by mix"
    columns = ("", *(f"MAR {name}" for name in names))
    return Table("matrix", title, "Rows: profiles and traits; columns: MAR.", columns, tuple(rows))


def cost_table(found: GridResults) -> Table:
    """Billed and stand-alone cost, per role and beyond this run."""
    columns = (
        "mix",
        "role",
        "model",
        "answers",
        "of which stored",
        "failed",
        "tokens in",
        "cached",
        "tokens out",
        "stand-alone $",
        "billed $",
        "seconds",
        "p50 s",
        "p95 s",
    )
    rows = []
    for one in found.rows:
        for role in one.cost.roles:
            rows.append(
                table_row(
                    word_cell(one.label),
                    word_cell(role.role),
                    word_cell(role.model),
                    count_cell(role.calls),
                    share_cell(role.stored, role.calls),
                    count_cell(role.failed),
                    count_cell(role.tokens_in),
                    count_cell(role.tokens_cached),
                    count_cell(role.tokens_out),
                    dollars_cell(role.usd, role.calls),
                    dollars_cell(role.billed_usd, role.calls),
                    figure_cell(role.seconds, 1),
                    NONE if role.p50 is None else figure_cell(role.p50, 2),
                    NONE if role.p95 is None else figure_cell(role.p95, 2),
                )
            )
        cost = one.cost
        said = (
            f"a user {_usd(cost.per_user)}, a user-item pair {_usd(cost.per_pair)}, 1,000 users "
            f"{_usd(cost.per_thousand)}, the whole dataset {_usd(cost.population)}"
        )
        whole = [dollars_cell(cost.usd, 1), dollars_cell(cost.billed_usd, 1), figure_cell(cost.seconds, 1), NONE, NONE]
        rows.append(
            table_row(word_cell(one.label), word_cell("in all"), word_cell(said), *[NONE] * 6, *whole, kind="total")
        )
    caption = (
        "Stand-alone: as if every answer had been paid for this mix. Billed: what was really sent for it, after the "
        "mixes before it. A model without a price is unknown, not free. MOTE is paid once a product, so it is in the "
        "price of a pair and of the whole dataset, not in that of a user."
    )
    return Table("costs", "Cost", caption, columns, tuple(rows))


def published_cost_table(found: GridResults) -> Table | None:
    """The paper's Table 7 from the reference mix's tokens; None where it asked nothing of MOTE."""
    reference = next((one for one in found.rows if one.label == found.reference), None)
    recomputed = recompute(reference.cost, price_table()) if reference is not None else []
    if not recomputed:
        return None
    rows = [
        table_row(
            word_cell(one.deployment),
            TableCell(f"${one.per_pair:.5f}", one.per_pair),
            TableCell(f"${one.per_list:.4f}", one.per_list),
            *(TableCell(f"${usd}", float(usd)) for usd in one.published.values()),
        )
        for one in recomputed
    ]
    columns = ("models", "a user-item pair", "a list", *(f"{name}, as published" for name in recomputed[0].published))
    caption = (
        f"Tokens measured with {found.reference}, at the prices of the paper's models and without caching. The paper "
        "prints dollars per user-item interaction and does not say whether that is a pair of user and candidate or a "
        "user's whole list: compare with both. Prompts differ as well."
    )
    return Table("table-7", "The paper's Table 7 from measured tokens", caption, columns, tuple(rows))


def scatter(found: GridResults, grid: Grid) -> go.Figure:
    """Quality against cost, with the front."""
    shown = [one for one in found.rows if one.metrics]
    recommendation = found.recommendation
    unit = recommendation.unit if recommendation else "seconds"
    price = {one.label: (one.cost.usd if unit == "dollars" else one.cost.seconds) for one in shown}
    plot = go.Figure()
    chosen = recommendation.chosen if recommendation else None
    values = [one.metrics[grid.metric] for one in shown]
    plot.add_scatter(
        x=[price[one.label] for one in shown],
        y=[value.mean for value in values],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [value.high - value.mean for value in values],
            "arrayminus": [value.mean - value.low for value in values],
            "thickness": 1,
        },
        mode="markers+text",
        text=[one.label for one in shown],
        textposition="top center",
        marker={"size": 10, "color": ["#d62728" if one.label == chosen else "#1f77b4" for one in shown]},
        name="mixes",
    )
    front = [one for label in found.front for one in shown if one.label == label]
    plot.add_scatter(
        x=[price[one.label] for one in front],
        y=[one.metrics[grid.metric].mean for one in front],
        mode="lines",
        line={"shape": "hv", "color": "#555"},
        name="Pareto front",
    )
    return plot.update_layout(
        title=f"{grid.metric}/{found.list_size} against {unit} for these users",
        xaxis_title=unit,
        yaxis_title=f"{grid.metric}/{found.list_size}",
    )


def latencies(found: GridResults) -> go.Figure:
    """p50 and p95 of the answers each role really waited for."""
    plot = go.Figure()
    lines = [(one.label, role) for one in found.rows for role in one.cost.roles if role.p50 is not None]
    names = [f"{label} · {role.role}" for label, role in lines]
    plot.add_bar(x=names, y=[role.p50 for _, role in lines], name="p50")
    plot.add_bar(x=names, y=[role.p95 for _, role in lines], name="p95")
    return plot.update_layout(title="Latency of one answer", yaxis_title="seconds", barmode="group")


def _usd(usd: float | None) -> str:
    return "unknown" if usd is None else f"${usd:,.6f}" if usd < 0.01 else f"${usd:,.2f}"


def _record(
    grid: Grid,
    runs: Sequence[MixRun],
    case_file: Cases,
    data: Dataset,
    histories: Mapping[str, Sequence[str]],
    directory: Path,
    command: str,
    versions: Mapping[str, str],
) -> StudyRecord:
    name = "cases"
    shown = {item for case in case_file.cases for item in case.candidates}
    shown |= {event.item_id for case in case_file.cases for event in case.history}
    protocol = ProtocolRecord(
        dataset=data.name,
        name=name,
        choices=case_file.protocol.choices(),
        cases={0: case_file},
        popularity=Popularity.fit(histories).counts,
        catalogue={item: data.items[item] for item in shown if item in data.items},
    )
    records = []
    for run in runs:
        path = directory / run.mix.label
        if not run.rows:
            continue
        calls = list(read_calls(path / "ledger.jsonl"))
        records.append(
            RunRecord(
                dataset=data.name,
                protocol=name,
                draw=0,
                ranker=run.mix.label,
                seed=None,
                manifest=RunManifest.model_validate_json((path / "manifest.json").read_bytes()),
                rows=run.rows,
                ranks=run.ranks,
                list_size=len(case_file.cases[0].candidates),
                unresolved=run.unresolved,
                usage=by_role(calls),
                stand_alone=by_role(call.model_copy(update={"hit": False}) for call in once_each(calls)),
                command=command,
            )
        )
    return StudyRecord(
        name="comparison",
        title=f"Mixes of {grid.ranker} on {data.name}",
        reference=grid.reference_label,
        protocols=[protocol],
        runs=records,
        commands=[command],
        hashes={"data": data.sha256, "cases": case_file.sha256},
        versions=versions,
        missing={run.mix.label: run.stopped or "no row" for run in runs if run.unresolved},
    )
