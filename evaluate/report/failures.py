"""What went wrong, each kind counted apart: a wrong ranking, an unreadable answer and a dead server are not alike."""

from __future__ import annotations

from collections.abc import Sequence

from evaluate.report.ranker_runs import RankerRuns
from evaluate.report.table import NONE, Table, TableCell, TableRow, count_cell, share_cell, table_row, word_cell
from evaluate.stats.metrics import CUTOFFS
from signatures.rows import Status, total_usage

FIRST = CUTOFFS[0]

UNCHECKED = "not checked"
"""What `programs.explain` writes as the verdict on a reason that no judge re-checked."""


def outcome_table(groups: Sequence[RankerRuns]) -> Table:
    """Every case in exactly one of four columns, which add up to the cases."""
    rows: list[TableRow] = []
    for group in groups:
        hits = misses = unparsable = saved = 0
        for run in group.runs:
            unread = {user for user, found in run.rows.items() if found.status is Status.UNPARSABLE}
            for user, rank in run.ranks.items():
                if user in unread:
                    unparsable += 1
                    saved += rank <= FIRST
                elif rank <= FIRST:
                    hits += 1
                else:
                    misses += 1
        cases = group.resolved + group.unresolved
        each = [share_cell(n, cases) for n in (hits, misses, unparsable, group.unresolved)]
        rows.append(table_row(word_cell(group.label), count_cell(cases), *each, count_cell(saved)))
    caption = (
        f"Every case (user and list, over all draws and seeds) is exactly one of four: a hit in the first {FIRST}, a "
        "miss, a shopper for whom no answer of the model could be read, or a failure of infrastructure. Unread "
        "shoppers are ranked by what is left, usually the prior, and count in the accuracy figures that way: the last "
        f"column says how many of them still had their item in the first {FIRST}. Failures of infrastructure count "
        "nowhere; they give bounds."
    )
    columns = ("ranker", "cases", f"hit@{FIRST}", f"miss@{FIRST}", "unread", "infrastructure", "unread, yet hit")
    return Table("outcomes", "How the cases ended", caption, columns, tuple(rows))


def answer_table(groups: Sequence[RankerRuns]) -> Table | None:
    """What was wrong with the model's answers; None where no ranker asks a model."""
    speaking = [group for group in groups if group.speaks and group.scored]
    if not speaking:
        return None
    rows: list[TableRow] = []
    for group in speaking:
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
        "Unparsable answers were asked for once more; in brackets their share of all answers. Candidates left out were "
        "put below the ones the model named; labels dropped name no candidate or came twice. Trait phrases are refused "
        "by rules (brand, price, too long, repeated, ...). A reason is unfaithful if its re-check says that profile "
        "and traits do not carry it, or if there was none to check; reasons nobody re-checked are left out."
    )
    columns = (
        "ranker",
        "unparsable answers",
        "candidates left out",
        "labels dropped",
        "trait phrases refused",
        "reasons unfaithful",
    )
    return Table("answers", "What was wrong with answers", caption, columns, tuple(rows))


def _each(total: int, users: int) -> TableCell:
    if not users:
        return NONE
    return TableCell(f"{total:,} ({total / users:.1f} a user)", total)
