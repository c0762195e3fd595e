"""Variance components and sample-size table."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from evaluate.report.costs import per_user_price
from evaluate.report.ranker_runs import RankerRuns, in_common
from evaluate.report.table import (
    NONE,
    Table,
    TableCell,
    TableRow,
    count_cell,
    figure_cell,
    filled,
    table_row,
    word_cell,
)
from evaluate.stats.metrics import per_user
from evaluate.stats.power import detectable, sample_size
from evaluate.stats.variance import VarianceComponent, split_variance
from programs.runtime.errors import InputError

UNCERTAINTY_METRICS = ("HR@5", "NDCG@5")

WORTH_SEEING = 0.03
"""Difference of HR@5 to plan for; about the distance between neighbouring rows of published tables."""

POWER = 0.8

ROUNDING = 1e-9
"""A standard deviation up to this is 0: means of hits over draws differ in their last digits."""


def variance_table(groups: Sequence[RankerRuns]) -> Table | None:
    """Standard errors by source; None if every ranker has one draw and one seed."""
    repeated = [group for group in groups if group.draws > 1 or group.seeds > 1]
    if not repeated:
        return None
    columns = ("ranker", "metric", "mean", "users", "draws", "seeds", "draws × seeds", "total", "n users")
    rows: list[TableRow] = []
    for group in repeated:
        for metric in UNCERTAINTY_METRICS:
            first = [word_cell(group.label), word_cell(group.sized(metric))]
            try:
                split = split_variance(_records(group, metric))
            except InputError:  # every run has fewer than two users
                rows.append(filled(first, len(columns)))
                continue
            parts = [_part(part) for part in (split.users, split.draws, split.seeds, split.joint)]
            rows.append(
                table_row(*first, figure_cell(split.mean), *parts, figure_cell(split.sd, 4), count_cell(split.n_users))
            )
    caption = (
        "Standard error of the mean by source: other users, other negatives for the same users (draws), other training "
        "or sampling seeds, or the interaction of draws and seeds. The share of the variance is in brackets. A dash "
        "means unknown (only one draw or seed), not zero. Figures from two or three draws or seeds are rough."
    )
    return Table("variance", "Sources of uncertainty", caption, columns, tuple(rows))


def _records(group: RankerRuns, metric: str) -> pd.DataFrame:
    frames = [
        pd.DataFrame({"value": per_user(run.ranks)[metric]})
        .assign(draw=run.draw, seed=run.seed or 0)
        .rename_axis("user")
        .reset_index()
        for run in group.runs
    ]
    return pd.concat(frames, ignore_index=True)


def _part(part: VarianceComponent | None) -> TableCell:
    if part is None:
        return NONE
    return TableCell(f"{part.sd:.4f}" + ("" if part.share is None else f" ({part.share:.0%})"), part.sd)


def planner_table(groups: Sequence[RankerRuns], reference: RankerRuns | None) -> Table | None:
    """Number of users needed to detect a difference to the reference; None if there is nothing to compare."""
    if reference is None or len(groups) < 2:
        return None
    rows: list[TableRow] = []
    columns = ("ranker", "sd", "users", f"users for {WORTH_SEEING:g}", "price", "detectable")
    for group in groups:
        if group is reference:
            continue
        mine, theirs = in_common(group.cells, reference.cells)
        values = mine["HR@5"] - theirs["HR@5"]
        sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        first = [word_cell(group.label), figure_cell(sd) if len(values) > 1 else NONE, count_cell(len(values))]
        if sd <= ROUNDING:
            rows.append(filled(first, len(columns)))
            continue
        price = per_user_price(group)
        planned = sample_size(sd, WORTH_SEEING, POWER, usd_per_user=price)
        cost = TableCell("unknown") if group.uses_lm else word_cell("no model calls")
        if planned.usd is not None:
            cost = TableCell(f"${planned.usd:,.2f}", planned.usd)
        rows.append(table_row(*first, count_cell(planned.users), cost, figure_cell(detectable(len(values), sd, POWER))))
    caption = (
        f"Users needed to detect a difference of {WORTH_SEEING:g} in {reference.sized('HR@5')} between a ranker and "
        f"{reference.label} with power {POWER:g} in a two-sided test at 5%, and the price of these users with as many "
        "draws and seeds as here. "
        "“Detectable” is the smallest difference that the users of this study can show. “sd” is the standard deviation "
        "of the measured per-user differences. Holm's correction for several comparisons needs more users."
    )
    return Table("planner", "Sample size", caption, columns, tuple(rows))
