"""Failure tables: misses, unparsable answers and unresolved cases, counted separately."""

from __future__ import annotations

from collections.abc import Sequence

from evaluate.report.ranker_runs import RankerRuns
from evaluate.report.table import NONE, Table, TableCell, TableRow, count_cell, share_cell, table_row, word_cell
from evaluate.stats.metrics import CUTOFFS
from programs.label_aligners import mean_by_position
from signatures.rows import Status, total_usage

FIRST = CUTOFFS[0]

UNCHECKED = "not checked"
"""Verdict of `programs.explain` on a reason that was not re-checked."""


def outcome_table(groups: Sequence[RankerRuns]) -> Table:
    """Number of cases by outcome; each case has exactly one of four."""
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
        f"Each case (user and list, over all draws and seeds) has one of four outcomes: a hit in the first {FIRST}, a "
        "miss, unparsable (no answer of the model could be read for this user), or unresolved (a call failed, or the "
        "run was stopped before the case). Unparsable cases are ranked by the other scores, usually the prior, and are "
        "part of the accuracy figures; the last column counts the hits among them. Unresolved cases are not part of "
        "the accuracy figures; they widen the bounds."
    )
    columns = ("ranker", "cases", f"hit@{FIRST}", f"miss@{FIRST}", "unparsable", "unresolved", "unparsable hits")
    return Table("outcomes", "Outcome of the cases", caption, columns, tuple(rows))


def answer_table(groups: Sequence[RankerRuns]) -> Table | None:
    """Defects of the model's answers; None if no ranker uses a model."""
    asking = [group for group in groups if group.uses_lm and group.scored]
    if not asking:
        return None
    rows: list[TableRow] = []
    for group in asking:
        scored = group.scored
        usage, asked = total_usage(found.usage for found in scored), sum(found.asked for found in scored)
        refused = sum(len(traits.dropped) for found in scored for traits in found.traits)
        profiles = [found.profile for found in scored if found.profile is not None]
        orders, motives = (sum(len(getattr(one, name)) for one in profiles) for name in ("dropped", "phrases"))
        kept = sum(len(traits.phrases) for found in scored for traits in found.traits)
        verdicts = [rationale.verdict for found in scored for rationale in found.rationales]
        checked = [verdict for verdict in verdicts if verdict.why != UNCHECKED]
        unfaithful = sum(not verdict.faithful for verdict in checked)
        rows.append(
            table_row(
                word_cell(group.label),
                share_cell(sum(found.unparsable for found in scored), usage.calls + usage.cache_hits),
                _each(sum(found.appended for found in scored), asked),
                _each(sum(found.dropped for found in scored), asked),
                share_cell(refused, refused + kept),
                share_cell(orders, orders + motives),
                share_cell(unfaithful, len(checked)),
            )
        )
    caption = (
        "Unparsable answers were requested a second time; their share of all answers is in brackets. Candidates that "
        "the model left out were ranked below the others. Dropped labels belong to no candidate or were repeated. "
        "Trait phrases are refused by rules (brand, price, too long, repeated, ...), motivations and needs if they "
        "could be orders. A reason is unfaithful if the judge says that profile and traits do not support it, or if it "
        "is missing; only re-checked reasons count."
    )
    columns = (
        "ranker",
        "unparsable",
        "left out",
        "labels dropped",
        "traits refused",
        "motivations refused",
        "unfaithful reasons",
    )
    return Table("answers", "Defects of answers", caption, columns, tuple(rows))


def position_table(groups: Sequence[RankerRuns]) -> Table | None:
    """MAR's preference by position in its prompt; None if no ranker reads the log-probabilities of a whole list."""
    curves = {group.label: mean_by_position([found.by_position for found in group.scored]) for group in groups}
    rows = []
    for label, curve in curves.items():
        if curve:
            rows.append(table_row(word_cell(label), count_cell(len(curve)), *map(_nats, _landmarks(curve))))
    if not rows:
        return None
    caption = (
        "Mean score of MAR by position in its prompt, in nats, before calibration, over users and drawn orders. It is "
        "0 everywhere for a model that positions do not influence. `metrics.json` of each run has every position."
    )
    columns = ("ranker", "positions", "first", "middle", "last", "highest", "lowest")
    return Table("positions", "Preference by position in the prompt", caption, columns, tuple(rows))


def _landmarks(curve: Sequence[float]) -> list[float]:
    return [curve[0], curve[len(curve) // 2], curve[-1], max(curve), min(curve)]


def _nats(value: float) -> TableCell:
    return TableCell(f"{value:+.2f}", value)


def _each(total: int, users: int) -> TableCell:
    if not users:
        return NONE
    return TableCell(f"{total:,} ({total / users:.1f} per user)", total)
