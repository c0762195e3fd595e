"""Sections of a study, one per protocol: the blocks for each tab."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from evaluate.protocol.nobody_first import NOBODY_FIRST
from evaluate.report import accuracy, costs, failures, figures, lists, reproduction, selective, slices, uncertainty
from evaluate.report.blocks import Block, Details, Lines, tables_in
from evaluate.report.ranker_runs import RankerRuns, ranker_runs, unreported
from evaluate.report.record import ProtocolRecord, StudyRecord
from evaluate.report.table import NONE, Table, TableRow, table_row, word_cell
from programs.runtime.errors import InputError


@dataclass
class ProtocolSection:
    """The blocks of one protocol on one dataset, for each tab."""

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
        """Name in the page's list of protocols."""
        return f"{self.protocol.dataset} · {self.protocol.name}"

    @property
    def tables(self) -> list[Table]:
        """Every table, in reading order."""
        return list(tables_in([*self.accuracy, *self.slices, *self.failures, *self.costs, *self.tuning]))


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


def _section(record: StudyRecord, protocol: ProtocolRecord, marks: figures.Looks) -> ProtocolSection:
    groups = ranker_runs(record, protocol)
    section = ProtocolSection(protocol, groups)
    choices = reproduction.choice_table(protocol, groups)
    if not groups:
        section.accuracy = [Lines(["No run of this protocol has a ranked user."]), choices]
        return section
    reference = next((group for group in groups if group.label == record.reference), None)
    compared = accuracy.against(reference, groups)
    section.main = accuracy.main_table(groups, record.reference, compared, unreported(record, protocol))
    section.accuracy = [
        section.main,
        Lines(accuracy.audit_lines(groups)),
        figures.accuracy(groups, section.main, marks),
        *_differences(record, groups, compared),
        *_some(
            accuracy.bounds_table(groups),
            lists.list_table(groups),
            uncertainty.variance_table(groups),
            uncertainty.planner_table(groups, reference),
        ),
        figures.cumulative(groups, marks),
        *([accuracy.published_metric_table(protocol.published)] if protocol.published else []),
        choices,
    ]
    for slicing in slices.slicings(protocol, groups):
        table = slices.slice_table(slicing, groups)
        section.slices += [figures.sliced(slicing, groups, marks), Details("The figures as a table", [table])]
    section.failures = [
        failures.outcome_table(groups),
        *_some(failures.answer_table(groups)),
        *_some(failures.position_table(groups)),
    ]
    section.costs = [
        costs.stand_alone_table(groups),
        costs.billed_table(groups),
        *_some(costs.fit_table(groups), selective.selective_table(groups)),
    ]
    section.tuning = [*reproduction.tuned_tables(groups), *reproduction.importance_tables(groups)]
    return section


def _differences(record: StudyRecord, groups: Sequence[RankerRuns], compared: accuracy.Compared) -> Iterable[Block]:
    size = groups[0].size
    if compared:
        yield accuracy.difference_table(record.reference, size, compared)
    elif record.reference not in {group.label for group in groups}:
        yield Lines([f"The reference, {record.reference}, did not run here: no differences."])
    if record.pairs:
        yield accuracy.pair_table(record.pairs, size, accuracy.pairs(groups, record.pairs))


def _some(*tables: Table | None) -> list[Table]:
    return [table for table in tables if table is not None]


def summary_table(found: Sequence[ProtocolSection], labels: Sequence[str]) -> Table:
    """HR@5 of every ranker on every protocol, taken from the main tables."""
    measured = [(section, section.main) for section in found if section.main is not None]
    own = [
        dict(zip((g.label for g in section.groups), (r.cells[1] for r in main.rows if _of_ranker(r)), strict=True))
        for section, main in measured
    ]
    rows = [table_row(word_cell(label), *(cells.get(label, NONE) for cells in own)) for label in labels]
    floors = [{row.cells[0].text: row.cells[1] for row in main.rows if row.kind == "chance"} for _, main in measured]
    if any(NOBODY_FIRST in cells for cells in floors):
        cells = (cells.get(NOBODY_FIRST, NONE) for cells in floors)
        rows.append(table_row(word_cell(NOBODY_FIRST), *cells, kind="chance"))
    rows.append(table_row(word_cell("chance"), *(main.rows[-1].cells[1] for _, main in measured), kind="chance"))
    columns = ("ranker", *(f"{s.name}: HR@5/{s.groups[0].size}" for s, _ in measured))
    caption = (
        "Share of users whose held-out item is among the first five, with 95% intervals; the marks are those of each "
        "protocol's table. Compare figures of the same column only: columns differ in users, targets or negatives."
    )
    return Table("summary", "Summary", caption, columns, tuple(rows))


def _of_ranker(line: TableRow) -> bool:
    return line.kind in ("", "reference") and line.cells[1].value is not None
