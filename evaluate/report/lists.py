"""Table of what is recommended, right or not: reciprocal rank, novelty, popularity bias, diversity and coverage."""

from __future__ import annotations

from collections.abc import Sequence

from evaluate.report.ranker_runs import RankerRuns
from evaluate.report.record import FURTHER_AT, RunRecord
from evaluate.report.table import (
    NONE,
    Table,
    TableCell,
    TableRow,
    count_cell,
    estimate_cell,
    share_cell,
    table_row,
    word_cell,
)
from evaluate.stats.list_metrics import DIVERSITY, NOVELTY, POPULARITY_BIAS

_METRICS = ("MRR", NOVELTY, POPULARITY_BIAS, DIVERSITY)


def list_table(groups: Sequence[RankerRuns]) -> Table | None:
    """One row a ranker, from its first draw and seed; None if no run has such figures."""
    rows = [_row(group.label, run) for group in groups if (run := group.runs[0]).further.means]
    if not rows:
        return None
    size = groups[0].size
    columns = ("ranker", *(f"{name}@{FURTHER_AT}/{size}" for name in (*_METRICS, "coverage")), "users")
    caption = (
        f"The first {FURTHER_AT} items of each user's list, whether they are right or not, in the first draw and seed; "
        "means over users with 95% intervals. MRR is 1 / rank of the held-out item, 0 below the cutoff, and here equal "
        "to MAP. Novelty: bits of self-information, higher for items that few users have. Popularity bias: how many "
        "more users the items have than those of the user's own history. Diversity: 1 minus the similarity of the "
        "items' categories. Coverage: items that somebody is shown, of all items that are among the candidates; it "
        "grows with the number of users."
    )
    return Table("lists", "What is recommended", caption, columns, tuple(rows))


def _row(label: str, run: RunRecord) -> TableRow:
    found = {name.partition("@")[0]: one for name, one in run.further.means.items()}
    cells = [estimate_cell(found[name]) if name in found else NONE for name in _METRICS]
    return table_row(word_cell(label), *cells, _coverage(run), count_cell(len(run.ranks)))


def _coverage(run: RunRecord) -> TableCell:
    for covered in run.further.coverage.values():
        return share_cell(covered.recommended, round(covered.reachable * covered.catalogue))
    return NONE
