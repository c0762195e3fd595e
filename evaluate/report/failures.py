"""Failure tables: misses, unparsable answers and unresolved cases, each counted apart."""

from __future__ import annotations

from collections.abc import Sequence

from evaluate.report.ranker_runs import RankerRuns
from evaluate.report.table import NONE, Table, TableCell, TableRow, count_cell, share_cell, table_row, word_cell
from evaluate.stats.metrics import CUTOFFS
from signatures.rows import Status, total_usage

FIRST = CUTOFFS[0]

UNCHECKED = "not checked"
"""The verdict of `programs.explain` on a reason that no judge re-checked."""


def outcome_table(groups: Sequence[RankerRuns]) -> Table:
    """Every case in exactly one of four columns, which add up to the cases."""
    rows: list[TableRow] = []
    for group in groups:
        hits = misses = unparsable = unparsable_hits = 0
        for run in group.runs:
            without_answer = {user for user, row in run.rows.items() if row.status is Status.UNPARSABLE}
            for user, rank in run.ranks.items():
                if user in without_answer:
                    unparsable += 1
                    unparsable_hits += rank <= FIRST
                elif rank <= FIRST:
                    hits += 1
                else:
                    misses += 1
        cases = group.resolved + group.unresolved
        each = [share_cell(n, cases) for n in (hits, misses, unparsable, group.unresolved)]
        rows.append(table_row(word_cell(group.label), count_cell(cases), *each, count_cell(unparsable_hits)))
    caption = (
        f"Every case (user and list, over all draws and seeds) is exactly one of four: a hit in the first {FIRST}, a "
        "miss, unparsable (no answer of the model for this user could be parsed), or unresolved (the infrastructure "
        "failed, or the case was not reached). Unparsable cases are ranked by the other scores, usually the prior, and "
        "count in the accuracy figures that way; the last column counts the hits among them. Unresolved cases count "
        "nowhere; they give bounds."
    )
    columns = ("ranker", "cases", f"hit@{FIRST}", f"miss@{FIRST}", "unparsable", "unresolved", "unparsable hits")
    return Table("outcomes", "Outcome of the cases", caption, columns, tuple(rows))


def answer_table(groups: Sequence[RankerRuns]) -> Table | None:
    """Defects of the model's answers; None where no ranker asks a model."""
    asking = [group for group in groups if group.uses_lm and group.scored]
    if not asking:
        return None
    rows: list[TableRow] = []
    for group in asking:
        scored = group.scored
        usage = total_usage(found.usage for found in scored)
        refused = sum(len(traits.dropped) for found in scored for traits in found.traits)
        kept = sum(len(traits.phrases) for found in scored for traits in found.traits)
        verdicts = [rationale.verdict for found in scored for rationale in found.rationales]
        checked = [verdict for verdict in verdicts if verdict.why != UNCHECKED]
        unfaithful = sum(not verdict.faithful for verdict in checked)
        rows.append(
            table_row(
                word_cell(group.label),
                share_cell(sum(found.unparsable for found in scored), usage.calls + usage.cache_hits),
                _each(sum(found.appended for found in scored), len(scored)),
                _each(sum(found.dropped for found in scored), len(scored)),
                share_cell(refused, refused + kept),
                share_cell(unfaithful, len(checked)),
            )
        )
    caption = (
        "Unparsable answers were requested once more; in brackets their share of all answers. Candidates that the "
        "model left out were ranked below the ones it named; dropped labels name no candidate or were repeated. Trait "
        "phrases are refused by rules (brand, price, too long, repeated, ...). A reason is unfaithful if its re-check "
        "says that profile and traits do not support it, or if there was no reason; reasons without a re-check are not "
        "counted."
    )
    columns = ("ranker", "unparsable", "left out", "labels dropped", "traits refused", "unfaithful reasons")
    return Table("answers", "Defects of answers", caption, columns, tuple(rows))


def _each(total: int, users: int) -> TableCell:
    if not users:
        return NONE
    return TableCell(f"{total:,} ({total / users:.1f} per user)", total)
