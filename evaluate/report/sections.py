"""A study as sections: which tables and figures stand in which tab, for the page and for the files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import plotly.graph_objects as go

from evaluate.report import accuracy, costs, failures, figures, reproduction, slices
from evaluate.report import uncertainty as spread
from evaluate.report.ranker_runs import RankerRuns, ranker_runs, unreported
from evaluate.report.record import ProtocolRecord, StudyRecord
from evaluate.report.table import NONE, Table, TableRow, table_row, word_cell
from programs.runtime.errors import InputError


@dataclass
class Block:
    """One thing under another: a table, a figure with its caption, or lines of text."""

    table: Table | None = None
    figure: go.Figure | None = None
    caption: str = ""
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class Tab:
    """A tab a caller adds before those of the report.

    Attributes:
        name: Lower-case letters and digits; part of the page's addresses and of file names.
    """

    name: str
    title: str
    blocks: Sequence[Block]

    @property
    def tables(self) -> list[Table]:
        """Its tables, in reading order."""
        return [block.table for block in self.blocks if block.table is not None]


@dataclass
class ProtocolSection:
    """Everything about one protocol on one dataset, by tab."""

    protocol: ProtocolRecord
    groups: list[RankerRuns]
    main: Table | None = None
    accuracy: list[Block] = field(default_factory=list)
    slices: list[Block] = field(default_factory=list)
    failures: list[Block] = field(default_factory=list)
    costs: list[Block] = field(default_factory=list)
    tuning: list[Block] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What readers choose it by."""
        return f"{self.protocol.dataset} · {self.protocol.name}"

    @property
    def tables(self) -> list[Table]:
        """Every table, in reading order."""
        blocks = [*self.accuracy, *self.slices, *self.failures, *self.costs, *self.tuning]
        return [block.table for block in blocks if block.table is not None]


def sections(record: StudyRecord) -> list[ProtocolSection]:
    """One section per protocol.

    Raises:
        InputError: if no run of the study has a ranked user, or a run does not fit its protocol.
    """
    if not any(run.ranks for run in record.runs):
        missing = "; ".join(f"{name}: {reason}" for name, reason in list(record.missing.items())[:3])
        raise InputError(
            f"study {record.name!r}: no run has a ranked user, so there is nothing to report"
            + (f" (missing: {missing})" if missing else "; run the study first")
        )
    marks = figures.looks(list(dict.fromkeys(run.ranker for run in record.runs)))
    return [_section(record, protocol, marks) for protocol in record.protocols]


def _section(record: StudyRecord, protocol: ProtocolRecord, marks: Mapping[str, Mapping[str, str]]) -> ProtocolSection:
    found = ranker_runs(record, protocol)
    section = ProtocolSection(protocol, found)
    choices = Block(reproduction.choice_table(protocol, found))
    if not found:
        section.accuracy = [Block(lines=["No run of this protocol has a ranked user."]), choices]
        return section
    size = found[0].size
    reference = next((group for group in found if group.label == record.reference), None)
    compared = accuracy.against(reference, found)
    section.main = accuracy.main_table(found, record.reference, compared, unreported(record, protocol))
    section.accuracy = [
        Block(section.main),
        Block(lines=accuracy.audit_lines(found)),
        Block(figure=figures.accuracy(found, section.main, marks), caption="The first column of the table above."),
    ]
    if compared:
        section.accuracy.append(Block(accuracy.difference_table(record.reference, size, compared)))
    elif reference is None:
        section.accuracy.append(Block(lines=[f"The reference, {record.reference}, did not run here: no differences."]))
    if record.pairs:
        section.accuracy.append(Block(accuracy.pair_table(record.pairs, size, accuracy.pairs(found, record.pairs))))
    section.accuracy += [
        Block(table)
        for table in (
            accuracy.bounds_table(found),
            spread.variance_table(found),
            spread.planner_table(found, reference),
        )
        if table is not None
    ]
    section.accuracy.append(
        Block(
            figure=figures.cumulative(found, marks),
            caption="Share of held-out items that a ranker places among its first r, for every r: HR@r/"
            f"{size} at all cutoffs at once. The dashed line is a random order; over all draws and seeds.",
        )
    )
    if protocol.published:
        section.accuracy.append(Block(accuracy.published_metric_table(protocol.published)))
    section.accuracy.append(choices)
    for slicing in slices.slicings(protocol, found):
        section.slices += [
            Block(figure=figures.sliced(slicing, found, marks), caption=f"{slicing.caption} 95% intervals."),
            Block(slices.slice_table(slicing, found)),
        ]
    answers = failures.answer_table(found)
    section.failures = [Block(failures.outcome_table(found)), *([Block(answers)] if answers else [])]
    section.costs = [Block(costs.stand_alone_table(found)), Block(costs.billed_table(found))]
    section.tuning = [Block(table) for table in reproduction.tuned_tables(found)]
    return section


def summary_table(found: Sequence[ProtocolSection], labels: Sequence[str]) -> Table:
    """HR@5 of every ranker on every protocol, taken from the main tables."""
    measured = [(section, section.main) for section in found if section.main is not None]
    own = [
        dict(zip((g.label for g in section.groups), (r.cells[1] for r in main.rows if _of_ranker(r)), strict=True))
        for section, main in measured
    ]
    rows = [table_row(word_cell(label), *(cells.get(label, NONE) for cells in own)) for label in labels]
    rows.append(table_row(word_cell("chance"), *(main.rows[-1].cells[1] for _, main in measured), kind="chance"))
    columns = ("ranker", *(f"{s.name}: HR@5/{s.groups[0].size}" for s, _ in measured))
    caption = (
        "Share of users whose held-out item is among the first five, with 95% intervals; marks as in the table of each "
        "protocol. Columns differ in users, targets or negatives: compare within a column, never across."
    )
    return Table("summary", "At a glance", caption, columns, tuple(rows))


def _of_ranker(line: TableRow) -> bool:
    return line.kind in ("", "reference") and line.cells[1].value is not None
