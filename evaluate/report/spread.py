"""Where the uncertainty comes from, and how many users it would take to see less of it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from evaluate.metrics import per_user
from evaluate.planner import detectable, plan
from evaluate.report.costs import per_user_price
from evaluate.report.grouped import Group, in_common
from evaluate.report.table import NONE, Cell, Row, Table, count, figure, filled, row, word
from evaluate.variance import Part, split_variance
from programs.errors import InputError

METRICS = ("HR@5", "NDCG@5")

WORTH_SEEING = 0.03
"""Three points of a metric: about what separates neighbours in published tables."""

POWER = 0.8


def variance_table(groups: Sequence[Group]) -> Table | None:
    """Standard errors by source; None where every ranker has one draw and one seed."""
    repeated = [group for group in groups if group.draws > 1 or group.seeds > 1]
    if not repeated:
        return None
    columns = ("ranker", "metric", "mean", "users", "draws", "seeds", "both", "in all", "users counted")
    rows: list[Row] = []
    for group in repeated:
        for metric in METRICS:
            first = [word(group.label), word(group.sized(metric))]
            try:
                split = split_variance(_records(group, metric))
            except InputError:  # fewer than two users in every run: nothing to split
                rows.append(filled(first, len(columns)))
                continue
            parts = [_part(part) for part in (split.users, split.draws, split.seeds, split.joint)]
            rows.append(row(*first, figure(split.mean), *parts, figure(split.sd, 4), count(split.n_users)))
    caption = (
        "By how much the mean would move (one standard error) if only this were drawn again: other users, other "
        "negatives for the same users, other training or sampling seeds, or what draws and seeds do together. In "
        "brackets the share of the variance. A dash is unknown, not zero: there is only one draw or one seed. Two or "
        "three draws or seeds give a rough figure."
    )
    return Table("variance", "Where the uncertainty comes from", caption, columns, tuple(rows))


def _records(group: Group, metric: str) -> pd.DataFrame:
    frames = [
        pd.DataFrame({"value": per_user(run.ranks)[metric]})
        .assign(draw=run.draw, seed=run.seed or 0)
        .rename_axis("user")
        .reset_index()
        for run in group.runs
    ]
    return pd.concat(frames, ignore_index=True)


def _part(part: Part | None) -> Cell:
    if part is None:
        return NONE
    return Cell(f"{part.sd:.4f}" + ("" if part.share is None else f" ({part.share:.0%})"), part.sd)


def planner_table(groups: Sequence[Group], reference: Group | None) -> Table | None:
    """How many users it takes to see a difference to the reference; None where there is nothing to compare."""
    if reference is None or len(groups) < 2:
        return None
    rows: list[Row] = []
    columns = (
        "ranker",
        "sd of the difference",
        "users compared",
        f"users to see {WORTH_SEEING:g}",
        "their price",
        "smallest difference these users show",
    )
    for group in groups:
        if group is reference:
            continue
        mine, theirs = in_common(group.cells, reference.cells)
        values = mine["HR@5"] - theirs["HR@5"]
        sd = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        first = [word(group.label), figure(sd) if len(values) > 1 else NONE, count(len(values))]
        if sd <= 0:
            rows.append(filled(first, len(columns)))
            continue
        price = per_user_price(group)
        planned = plan(sd, WORTH_SEEING, POWER, usd_per_user=price)
        cost = Cell("unknown") if group.speaks else word("no model calls")
        if planned.usd is not None:
            cost = Cell(f"${planned.usd:,.2f}", planned.usd)
        rows.append(row(*first, count(planned.users), cost, figure(detectable(len(values), sd, POWER))))
    caption = (
        f"So many users are needed to see a difference of {WORTH_SEEING:g} in {reference.sized('HR@5')} between a "
        f"ranker and {reference.label} with power {POWER:g} (four times in five, at a two-sided 5%); the last column "
        "is what the users of this study can show at all. The spread is that of the per-user differences seen here. "
        "Holm's correction for several comparisons asks for more."
    )
    return Table("planner", "How many users it takes", caption, columns, tuple(rows))
