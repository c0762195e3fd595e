"""The comparison as a tab of the report: recommended mix, accuracy, Pareto front, effects of roles, cost, latency."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from evaluate.experiments.grid import Grid
from evaluate.experiments.grid_results import GridResults, MixRow
from evaluate.paper.published_costs import recompute
from evaluate.protocol.nobody_first import NOBODY_FIRST
from evaluate.report.accuracy import nobody_first_values, tested_cells
from evaluate.report.blocks import Block, Figure, Lead, Lines, Notice, Tab
from evaluate.report.figures import COLOURS, error_bars, escaped, named_rows, pareto_line
from evaluate.report.pseudonyms import without_ids
from evaluate.report.record import ProtocolRecord
from evaluate.report.table import (
    NONE,
    Table,
    TableCell,
    TableRow,
    code_cell,
    count_cell,
    difference_cell,
    dollars_cell,
    estimate_cell,
    figure_cell,
    filled,
    share_cell,
    table_row,
    word_cell,
)
from evaluate.runs.costs import RoleCost
from evaluate.stats.cheapest import CheapestMix
from evaluate.stats.intervals import bootstrap_mean
from programs.lm.ledger import interrupted_note
from programs.lm.prices import price_table

PRIOR_ALONE = "prior alone"
"""Name of the row for the prior, which ranks without a language model."""


def grid_tab(found: GridResults, grid: Grid, protocol: ProtocolRecord) -> Tab:
    """The tab; it begins with the recommended mix."""
    stopped = [f"{row.label} was stopped: {without_ids(row.stopped)}" for row in found.rows if row.stopped]
    advice = found.recommendation
    blocks: list[Block] = [] if advice is None else [Lead(_advice(advice))]
    blocks += [Notice([Lines(stopped)])] if stopped else []
    blocks += [
        mix_table(found, nobody_first_values(protocol, found.list_size)),
        scatter(found, grid),
        effect_table(found),
        matrix_table(found, grid),
        unit_cost_table(found),
        role_cost_table(found),
        latencies(found),
    ]
    paper = published_cost_table(found)
    return Tab("mixes", "Mixes", blocks if paper is None else [*blocks, paper])


def _advice(found: CheapestMix) -> str:
    """The recommendation as a sentence; if a mix is chosen, it begins with the name of the mix."""
    text = str(found)
    return f"{text if found.chosen else text[0].upper() + text[1:]}."


def mix_table(found: GridResults, nobody_first: pd.DataFrame | None = None) -> Table:
    """Accuracy of every mix, and its difference to the reference.

    Args:
        nobody_first: Metrics of `nobody-has-it-first` by user, which stands in every table of cold lists.
    """
    metrics = next(list(row.metrics) for row in found.rows if row.metrics)
    columns = (
        "mix", *(f"{m}/{found.list_size}" for m in metrics), f"Δ {metrics[0]}", "p", "loss",
        "users", "unresolved", "unparsable", "cache hits", "scores from",
    )  # fmt: skip
    caption = (
        "A mix is named MOPE_MOTE_MAR, followed by the judge if its model is not MAR's. Δ is the difference to "
        f"{found.reference}, paired by user; p is from a randomization test, with Holm's correction over mixes and "
        "metrics. Loss is the difference to the best mix. Unresolved users are not counted as misses. Accuracy and "
        "cost depend on whether scores come from log-probabilities or from generated digits. The prior alone uses "
        "no model, so a mix that is not better than it is not worth its price."
    )
    rows = [_mix_row(row, metrics, found) for row in found.rows]
    if found.prior:
        alone = [word_cell(PRIOR_ALONE), *(estimate_cell(found.prior[m]) for m in metrics), NONE, NONE, NONE]
        rows.append(filled([*alone, count_cell(found.prior_users)], len(columns), kind="part"))
    if nobody_first is not None:
        means = [estimate_cell(bootstrap_mean(nobody_first[m].to_numpy(), seed=0)) for m in metrics]
        cells = [word_cell(NOBODY_FIRST), *means, NONE, NONE, NONE, count_cell(len(nobody_first))]
        rows.append(filled(cells, len(columns), kind="chance"))
    return Table("mixes", "Accuracy", caption, columns, tuple(rows))


def _mix_row(row: MixRow, metrics: Sequence[str], found: GridResults) -> TableRow:
    measured = [estimate_cell(row.metrics[m]) for m in metrics] if row.metrics else [NONE] * len(metrics)
    against = row.against.get(metrics[0])
    tested = [NONE, NONE] if against is None else tested_cells(against)
    losses = found.recommendation.losses if found.recommendation else {}
    return table_row(
        word_cell(row.label),
        *measured,
        *tested,
        figure_cell(losses[row.label].mean) if row.label in losses else NONE,
        count_cell(row.users),
        count_cell(row.unresolved),
        TableCell(f"{row.unparsable:.1%}{_of_users(row)}", row.unparsable),
        TableCell(f"{row.stored:.0%}", row.stored),
        word_cell(", ".join(f"{source} ({n})" for source, n in row.score_sources.items()) or "–"),
        kind="reference" if row.label == found.reference else "",
    )


def _of_users(row: MixRow) -> str:
    return f"; all of {row.unparsable_users} users" if row.unparsable_users else ""


def effect_table(found: GridResults) -> Table:
    """The effect of changing the model of one role."""
    columns = ("role", "from", "to", "pairs", "gain", "$ per user", "$ per item", "seconds")
    rows = [
        table_row(
            word_cell(effect.role),
            word_cell(effect.before),
            word_cell(effect.after),
            count_cell(effect.mixes),
            difference_cell(effect.gain),
            dollars_cell(effect.usd_per_user, 1),
            dollars_cell(effect.usd_per_product, 1),
            TableCell(f"{effect.seconds:+,.0f}".replace("-", "−"), effect.seconds),
        )
        for effect in found.effects
    ]
    metric = found.effects[0].metric if found.effects else "the metric"
    caption = (
        f"Mean over all pairs of mixes that differ only in the model of this role. Gain is in {metric}, with 95% "
        "interval; seconds are for all users together."
    )
    return Table("effects", "Effect of one role's model", caption, columns, tuple(rows))


def matrix_table(found: GridResults, grid: Grid) -> Table:
    """The metric of every mix, by the models of MOPE and MOTE (rows) and of MAR (columns)."""
    by_label = {row.label: row for row in found.rows}
    names = list(dict.fromkeys(mix.mar for mix in grid.mixes()))
    lines: dict[str, dict[str, MixRow]] = {}
    for mix in grid.mixes():
        judge = "" if mix.judge == mix.mar else f", judge {mix.judge}"
        row = by_label.get(mix.label)
        if row is not None and row.metrics:
            lines.setdefault(f"MOPE {mix.mope}, MOTE {mix.mote}{judge}", {})[mix.mar] = row
    rows = [
        table_row(
            word_cell(line),
            *(estimate_cell(cells[name].metrics[grid.metric]) if name in cells else NONE for name in names),
        )
        for line, cells in lines.items()
    ]
    title = f"{grid.metric}/{found.list_size} by mix"
    columns = ("profiles and traits", *(f"MAR {name}" for name in names))
    return Table("matrix", title, "Rows: models of MOPE and MOTE; columns: model of MAR.", columns, tuple(rows))


def unit_cost_table(found: GridResults) -> Table:
    """Cost of every mix in total and per unit."""
    columns = (
        "mix", "stand-alone $", "billed $", "$ per user", "$ per pair", "$ per 1,000 users", "$ dataset", "seconds",
    )  # fmt: skip
    rows = []
    for row in found.rows:
        cost = row.cost
        rows.append(
            table_row(
                word_cell(row.label),
                dollars_cell(cost.usd, 1),
                dollars_cell(cost.billed_usd, 1),
                *map(_small_price, (cost.per_user, cost.per_pair, cost.per_thousand, cost.population)),
                figure_cell(cost.seconds, 1),
                kind="reference" if row.label == found.reference else "",
            )
        )
    if found.prior:
        rows.append(table_row(word_cell(PRIOR_ALONE), *[_small_price(0.0)] * 6, NONE, kind="part"))
    caption = (
        "Stand-alone: as if there were no cache hits. Billed: what was paid for this mix, after the mixes before it. "
        "An unknown price is not zero. MOTE is paid once per item, so it is part of the price of a user-item pair and "
        "of the whole dataset, but not of a user."
    )
    return Table("unit-costs", "Cost", caption, columns, tuple(rows))


def role_cost_table(found: GridResults) -> Table:
    """Answers, tokens, dollars and latency of every role of every mix."""
    columns = (
        "mix", "role", "answers", "cache hits", "failed", "tokens in", "cached", "cache writes", "tokens out",
        "stand-alone $", "billed $", "seconds", "p50 s", "p95 s", "model",
    )  # fmt: skip
    rows = [_role_row(row.label, role) for row in found.rows for role in row.cost.roles]
    caption = (
        "“Cached” are input tokens that the server took from its prefix cache. p50 and p95 are the median and the 95th "
        "percentile of the seconds of one answer, without cache hits."
    )
    if interrupted := sum(role.interrupted for row in found.rows for role in row.cost.roles):
        caption += f" {interrupted_note(interrupted)}, in what was billed."
    return Table("costs", "Cost by role", caption, columns, tuple(rows))


def _role_row(label: str, role: RoleCost) -> TableRow:
    return table_row(
        word_cell(label),
        word_cell(role.role),
        count_cell(role.calls),
        share_cell(role.stored, role.calls),
        count_cell(role.failed),
        count_cell(role.tokens_in),
        count_cell(role.tokens_cached),
        count_cell(role.tokens_written),
        count_cell(role.tokens_out),
        dollars_cell(role.usd, role.calls),
        dollars_cell(role.billed_usd, role.calls),
        figure_cell(role.seconds, 1),
        NONE if role.p50 is None else figure_cell(role.p50, 2),
        NONE if role.p95 is None else figure_cell(role.p95, 2),
        code_cell(role.model),
    )


def _small_price(usd: float | None) -> TableCell:
    cell = dollars_cell(usd, 1)
    return cell if not usd or usd >= 0.01 else TableCell(f"${usd:,.6f}", usd)


def published_cost_table(found: GridResults) -> Table | None:
    """The paper's Table 7 from the reference mix's tokens; None without calls of MOTE."""
    reference = next((row for row in found.rows if row.label == found.reference), None)
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
    columns = ("models", "$ per pair", "$ per list", *(f"{name}, published" for name in recomputed[0].published))
    caption = (
        f"Tokens measured with {found.reference}, at the prices of the paper's models, without prefix caching. The "
        "paper gives dollars per user-item interaction, which may be a pair of user and candidate or a user's whole "
        "list, so the table shows both. The prompts also differ from the paper's."
    )
    return Table("table-7", "The paper's Table 7 from measured tokens", caption, columns, tuple(rows))


def scatter(found: GridResults, grid: Grid) -> Figure:
    """Quality against cost, with the Pareto front."""
    advice = found.recommendation
    unit = advice.unit if advice else "seconds"
    price = {row.label: (row.cost.usd if unit == "dollars" else row.cost.seconds) for row in found.rows}
    shown = [row for row in found.rows if row.metrics and price[row.label] is not None]
    shown.sort(key=lambda row: row.label not in found.front)  # the front gets its names first
    front = [row for label in found.front for row in shown if row.label == label]
    plot = go.Figure(pareto_line([price[row.label] for row in front], [row.metrics[grid.metric].mean for row in front]))
    for name, colour, rows in (
        ("mixes", COLOURS[0], [row for row in shown if not advice or row.label != advice.chosen]),
        ("recommended mix", COLOURS[1], [row for row in shown if advice and row.label == advice.chosen]),
    ):
        if rows:
            values = [row.metrics[grid.metric] for row in rows]
            plot.add_scatter(
                x=[price[row.label] for row in rows],
                y=[value.mean for value in values],
                error_y={**error_bars(values), "color": colour},
                mode="markers+text",
                text=[escaped(row.label) for row in rows],
                hovertext=[escaped(row.label) for row in rows],
                hovertemplate="%{hovertext}<br>%{x:.4g}<br>%{y:.3f}<extra></extra>",
                marker={"size": 10, "color": colour},
                name=name,
            )
    metric = f"{grid.metric}/{found.list_size}"
    plot.update_layout(height=430, margin={"l": 55, "r": 20, "t": 10, "b": 45})
    plot.update_xaxes(title=f"stand-alone {unit} for these users", rangemode="tozero").update_yaxes(title=metric)
    caption = (
        "Each point is a mix; bars are 95% intervals. The line connects the mixes that no other mix beats in both cost "
        "and quality. Hover over a point to see its name. Cost is stand-alone: as if there were no cache hits."
    )
    return Figure(f"{metric} against {unit}", plot, caption)


def latencies(found: GridResults) -> Figure:
    """Seconds of one answer for each role of each mix."""
    sent = {f"{row.label} · {role.role}": role for row in found.rows for role in row.cost.roles if role.p50 is not None}
    names = [escaped(name) for name in sent]
    median = {"color": COLOURS[0], "symbol": "circle", "size": 9}
    high = {"color": COLOURS[1], "symbol": "diamond", "size": 9}
    plot = go.Figure()
    plot.add_scatter(x=[role.p50 for role in sent.values()], y=names, mode="markers", marker=median, name="p50")
    plot.add_scatter(x=[role.p95 for role in sent.values()], y=names, mode="markers", marker=high, name="p95")
    plot.update_xaxes(title="seconds", rangemode="tozero")
    caption = "Median (p50) and 95th percentile (p95) of the seconds of one answer, without cache hits."
    return Figure("Latency of one answer", named_rows(plot, list(sent)), caption)
