"""Cost tables: billed cost (what was paid) and stand-alone cost (as if there were no cache hits)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from evaluate.report.ranker_runs import RankerRuns
from evaluate.report.table import (
    NONE,
    Kind,
    Table,
    TableCell,
    TableRow,
    count_cell,
    dollars_cell,
    figure_cell,
    filled,
    table_row,
    word_cell,
)
from programs.lm.ledger import interrupted_note
from signatures.rows import Cost, Usage, total_usage

USAGE_COLUMNS = ("calls", "cache hits", "tokens in", "cached", "cache writes", "tokens out", "dollars", "seconds")


def usage_cells(usage: Usage, partly: bool = False) -> list[TableCell]:
    """A cell for each of `USAGE_COLUMNS`; `partly` says that the dollars are incomplete."""
    prompts = (usage.tokens_in, usage.tokens_cached, usage.tokens_written)
    counts = (usage.calls, usage.cache_hits, *prompts, usage.tokens_out)
    return [*map(count_cell, counts), dollars_cell(usage.usd, usage.calls, partly), figure_cell(usage.seconds, 1)]


def usage_by_role(usages: Sequence[Mapping[str, Usage]]) -> dict[str, tuple[Usage, bool]]:
    """Sums over runs by role; the flag says that the dollars are incomplete, because a price is unknown."""
    roles = dict.fromkeys(role for usage in usages for role in usage)
    return {role: _sum([usage[role] for usage in usages if role in usage]) for role in roles}


def _sum(usages: Sequence[Usage]) -> tuple[Usage, bool]:
    total, parts = total_usage(usages), Cost.of(usage.usd for usage in usages if usage.calls)
    return total, total.usd is not None and (total.unpriced > 0 or not parts.complete)


def per_user_price(group: RankerRuns) -> float | None:
    """Stand-alone dollars of one user in all draws and seeds of the ranker; None if a price is unknown."""
    total, partly = _sum([usage for run in group.runs for usage in run.stand_alone.values()])
    return None if total.usd is None or partly or not len(group.users) else total.usd / len(group.users)


def billed_table(groups: Sequence[RankerRuns]) -> Table:
    """Billed cost by ranker and role."""
    columns = ("ranker", "role", *USAGE_COLUMNS)
    rows = [
        table_row(word_cell(group.label), word_cell(role), *usage_cells(usage, partly), kind=_kind(role))
        for group in groups
        for role, usage, partly in _lines([run.usage for run in group.runs])
    ]
    caption = (
        "Calls that were sent and paid in this study, over all draws and seeds. Cache hits are answers from earlier "
        "calls; they cost nothing and are counted separately. “Cached” are input tokens that the server took from its "
        "prefix cache. An unknown price is not zero; ≥ means that a part of the sum is unknown."
    )
    interrupted = sum(usage.interrupted for group in groups for run in group.runs for usage in run.usage.values())
    if interrupted:
        caption += f" {interrupted_note(interrupted)}."
    return Table("billed", "Billed", caption, columns, tuple(rows) or (_nothing(len(columns)),))


def stand_alone_table(groups: Sequence[RankerRuns]) -> Table:
    """Stand-alone cost of each ranker, in total and per user."""
    columns = (
        "ranker", "role", "calls", "tokens in", "tokens out", "dollars",
        "calls per user", "tokens per user", "dollars per user", "seconds per user",
    )  # fmt: skip
    rows: list[TableRow] = []
    for group in groups:
        users = group.resolved
        for role, usage, partly in _lines([run.stand_alone for run in group.runs]):
            cells = [count_cell(n) for n in (usage.calls, usage.tokens_in, usage.tokens_out)]
            tokens = usage.tokens_in + usage.tokens_out
            each = None if usage.usd is None else usage.usd / users
            rows.append(
                table_row(
                    word_cell(group.label),
                    word_cell(role),
                    *cells,
                    dollars_cell(usage.usd, usage.calls, partly),
                    figure_cell(usage.calls / users, 1),
                    figure_cell(tokens / users, 0),
                    _price_per_user(each, usage.calls, partly),
                    figure_cell(usage.seconds / users, 2),
                    kind=_kind(role),
                )
            )
    caption = (
        "Cost of the same rankings without cache hits. Use these figures to compare rankers, because they do not "
        "depend on the order of the runs. “Per user” means per ranked list."
    )
    return Table("stand-alone", "Stand-alone cost", caption, columns, tuple(rows) or (_nothing(len(columns)),))


def fit_table(groups: Sequence[RankerRuns]) -> Table | None:
    """CPU time and memory of fits, and the time of a list; None if no ranker was fitted."""
    if not any(run.fit_cost for group in groups for run in group.runs):
        return None
    rows = []
    for group in groups:
        fits = [run.fit_cost for run in group.runs if run.fit_cost is not None]
        lists = [row.usage.seconds for run in group.runs for row in run.rows.values()]
        if group.uses_lm or not lists:
            continue
        rows.append(
            table_row(
                word_cell(group.label),
                count_cell(len(fits)),
                figure_cell(sum(fit.cpu_seconds for fit in fits) / len(fits), 1) if fits else NONE,
                figure_cell(max(fit.peak_mib for fit in fits), 0) if fits else NONE,
                figure_cell(1000 * median(lists), 2),
            )
        )
    caption = (
        "CPU time of a fit, mean over the fits that were measured, and the largest resident memory of the process "
        "during one, with dataset and encoder. Milliseconds to rank one list, the median. A fit that was made before "
        "it was measured, or was stopped and went on, has no figures."
    )
    columns = ("ranker", "fits", "CPU seconds a fit", "peak MiB", "ms a list")
    return Table("fits", "Training and ranking time", caption, columns, tuple(rows))


def _price_per_user(usd: float | None, calls: int, partly: bool) -> TableCell:
    cell = dollars_cell(usd, calls, partly)
    return cell if usd is None else TableCell(f"{'≥ ' if partly else ''}${usd:.6f}", usd)


ALL_ROLES = "all roles"


def _kind(role: str) -> Kind:
    return "total" if role == ALL_ROLES else ""


def _lines(usages: Sequence[Mapping[str, Usage]]) -> list[tuple[str, Usage, bool]]:
    roles = usage_by_role(usages)
    lines = [(role, usage, partly) for role, (usage, partly) in roles.items()]
    if len(lines) > 1:
        total, partly = _sum([usage for each in usages for usage in each.values()])
        lines.append((ALL_ROLES, total, partly))
    return lines


def _nothing(width: int) -> TableRow:
    return filled([word_cell("no language model was used")], width)
