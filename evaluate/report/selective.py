"""Table of selective calls: quality and cost if only the users are asked about for whom the prior is least sure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from evaluate.report.ranker_runs import RankerRuns, over_draws
from evaluate.report.table import (
    NONE,
    Table,
    TableRow,
    count_cell,
    difference_cell,
    dollars_cell,
    estimate_cell,
    figure_cell,
    table_row,
    word_cell,
)
from evaluate.stats.selective import SelectivePoint, selective_curve
from programs.gate import margin
from signatures.rows import Usage

SHOWN_METRICS = ("HR@5", "NDCG@5")


def selective_table(groups: Sequence[RankerRuns]) -> Table | None:
    """One row per program and share of users asked about; None if no program fuses MAR with a prior."""
    rows: list[TableRow] = []
    for group in groups:
        if {"prior", "mar"} <= set(group.parts):
            rows += curve_rows(group.label, _curve(group), len(group.users))
    return curve_table(rows, groups[0].size) if rows else None


def curve_table(rows: Sequence[TableRow], size: int) -> Table:
    """The table of one or more curves.

    Args:
        size: Length of the ranked lists.
    """
    metrics = [f"{metric}/{size}" for metric in SHOWN_METRICS]
    minus = [f"{name} minus prior" for name in metrics]
    columns = ("ranker", "asked about", "users asked", *metrics, *minus, "calls per user", "dollars per user")
    caption = (
        "The prior ranks every user at no cost. The model is asked about the users for whom the prior's first item "
        "leads least; the prior alone ranks the others. The order of users does not depend on the targets. Costs are "
        "those of the asked users without cache hits, divided by all users."
    )
    return Table("selective", "Selective calls", caption, columns, tuple(rows))


def _curve(group: RankerRuns) -> list[SelectivePoint]:
    margins: dict[str, list[float]] = defaultdict(list)
    spent: dict[str, list[Usage]] = defaultdict(list)
    for run in group.runs:
        for user, row in run.rows.items():
            if row.scored and "prior" in row.scores:
                margins[user].append(margin(row.scores["prior"]))
                spent[user].append(row.usage)
    return selective_curve(
        over_draws(group.part("prior")),
        group.users,
        {user: sum(found) / len(found) for user, found in margins.items()},
        {user: sum(one.calls + one.cache_hits for one in usages) / len(usages) for user, usages in spent.items()},
        {user: _dollars(usages) for user, usages in spent.items()},
    )


def _dollars(usages: Sequence[Usage]) -> float | None:
    # A cache hit has no price in a row, so a row with hits cannot say what the user costs.
    if any(one.usd is None or one.cache_hits for one in usages):
        return None
    return sum(one.usd or 0.0 for one in usages) / len(usages)


def curve_rows(label: str, points: Sequence[SelectivePoint], users: int) -> list[TableRow]:
    """One row per share of users asked about."""
    return [_row(label, point, users) for point in points]


def _row(label: str, point: SelectivePoint, users: int) -> TableRow:
    return table_row(
        word_cell(label),
        word_cell(f"{point.share:.0%}"),
        count_cell(point.asked),
        *(estimate_cell(point.metrics[name]) for name in SHOWN_METRICS),
        *(difference_cell(point.gains[name]) if point.asked else NONE for name in SHOWN_METRICS),
        figure_cell(point.calls / users, 1),
        dollars_cell(None if point.usd is None else point.usd / users, round(point.calls)),
    )
