"""Tables for reproducing a study: protocol choices, runs with their commands, hashes, versions, missing runs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from evaluate.report.pseudonyms import without_ids
from evaluate.report.ranker_runs import RankerRuns
from evaluate.report.record import ProtocolRecord, RunRecord, StudyRecord
from evaluate.report.table import (
    NONE,
    Table,
    TableCell,
    TableRow,
    code_cell,
    count_cell,
    figure_cell,
    table_row,
    word_cell,
)

HASH_DIGITS = 12


def choice_table(protocol: ProtocolRecord, groups: Sequence[RankerRuns]) -> Table:
    """The choices of the protocol for open questions of the paper, and the ranked lists."""
    rows = [table_row(word_cell(what), word_cell(how)) for what, how in protocol.choices.items()]
    users = {case.user_id for cases in protocol.cases.values() for case in cases.cases}
    size = f"{groups[0].size:,} items, including the held-out one" if groups else "–"
    draws = len(protocol.cases)
    rows += [
        table_row(word_cell("users"), word_cell(f"{len(users):,}")),
        table_row(word_cell("ranked lists"), word_cell(size)),
        table_row(word_cell("draws of negatives"), word_cell(draws)),
        *(
            table_row(word_cell(f"cases, draw {draw}"), word_cell(f"sha256 {cases.sha256[:HASH_DIGITS]}"))
            for draw, cases in sorted(protocol.cases.items())
        ),
    ]
    caption = "The paper does not answer these questions, or gives two answers. The table shows the choices made here."
    return Table("protocol", "Protocol", caption, ("question", "choice"), tuple(rows))


def run_table(runs: Sequence[RunRecord]) -> Table:
    """Every run, with the command that repeats it."""
    columns = (
        "dataset", "protocol", "ranker", "draw", "seed", "ranked", "unresolved", "cases", "made", "command",
    )  # fmt: skip
    rows = [
        table_row(
            word_cell(run.dataset),
            word_cell(run.protocol),
            word_cell(run.ranker),
            count_cell(run.draw),
            NONE if run.seed is None else count_cell(run.seed),
            count_cell(len(run.ranks)),
            count_cell(run.unresolved),
            code_cell(run.manifest.cases_sha256[:HASH_DIGITS]),
            word_cell(run.manifest.created.strftime("%Y-%m-%d %H:%M")),
            code_cell(run.command or "–"),
        )
        for run in runs
    ]
    return Table(
        "runs",
        "Runs",
        "All runs of the study, each with the command that repeats it. “Cases” is the beginning of the sha256 of the "
        "ranked cases. Times are in UTC.",
        columns,
        tuple(rows),
    )


def named_table(name: str, title: str, caption: str, columns: tuple[str, str], facts: Mapping[str, str]) -> Table:
    """A table of names and texts."""
    rows = tuple(table_row(word_cell(key), word_cell(without_ids(value))) for key, value in facts.items())
    return Table(name, title, caption, columns, rows)


def study_tables(record: StudyRecord) -> list[Table]:
    """Tables of the study as a whole."""
    tables = [run_table(record.runs)]
    if record.missing:
        tables.insert(0, missing_table(record))
    if record.hashes:
        tables.append(hash_table(record.hashes))
    if record.versions:
        tables.append(version_table(record.versions))
    return tables


def hash_table(hashes: Mapping[str, str]) -> Table:
    """Hashes of the inputs."""
    rows = tuple(table_row(word_cell(name), code_cell(sha256)) for name, sha256 in hashes.items())
    return Table(
        "hashes", "Hashes", "Hashes of the inputs. Other inputs give other figures.", ("input", "sha256"), rows
    )


def version_table(versions: Mapping[str, str]) -> Table:
    """Package versions."""
    return named_table(
        "versions", "Versions", "Versions of the packages that were used.", ("package", "version"), versions
    )


def missing_table(record: StudyRecord) -> Table:
    """Runs of the study that are missing or incomplete."""
    caption = "These runs of the study are missing or incomplete, and so are their figures in this report."
    return named_table("missing", "Missing runs", caption, ("run", "reason"), record.missing)


def tuned_tables(groups: Sequence[RankerRuns]) -> list[Table]:
    """Settings tried on dev users, one table per tuned ranker."""
    return [_tuned(group) for group in groups if any(run.tuned for run in group.runs)]


def _tuned(group: RankerRuns) -> Table:
    runs = [run for run in group.runs if run.tuned]
    names = list(dict.fromkeys(name for run in runs for tried in run.tuned for name in tried))
    rows: list[TableRow] = []
    for run in runs:
        seed = NONE if run.seed is None else count_cell(run.seed)
        for tried in run.tuned:
            rows.append(table_row(count_cell(run.draw), seed, *(_setting(tried.get(name)) for name in names)))
    caption = f"Settings of {group.label} that were tried on dev users before test users were ranked, in this order."
    columns = ("draw", "seed", *names)
    return Table(f"tuned-{group.label}", f"Tuning of {group.label}", caption, columns, tuple(rows))


FEATURES_SHOWN = 25
"""Most features in an importance table."""


def importance_tables(groups: Sequence[RankerRuns]) -> list[Table]:
    """What each learned ranker relies on: its first features by mean gain, one table per ranker."""
    return [_importance(group) for group in groups if any(run.importance for run in group.runs)]


def _importance(group: RankerRuns) -> Table:
    runs = [run.importance for run in group.runs if run.importance]
    mean = {name: sum(run.get(name, 0.0) for run in runs) / len(runs) for name in runs[0]}
    first = sorted(mean.items(), key=lambda pair: -pair[1])[:FEATURES_SHOWN]
    caption = (
        f"Share of each feature in the gain of all splits of {group.label}'s trees, mean over {len(runs)} fits; the "
        f"first {len(first)} of {len(mean)} features. Features that say the same share the gain between them."
    )
    rows = tuple(table_row(code_cell(name), figure_cell(share)) for name, share in first)
    return Table(f"importance-{group.label}", f"Features of {group.label}", caption, ("feature", "share of gain"), rows)


def _setting(value: object) -> TableCell:
    if value is None:
        return NONE
    if isinstance(value, bool) or not isinstance(value, int | float):
        return word_cell(value if isinstance(value, str) else json.dumps(value, default=str))
    return TableCell(f"{value:.4g}" if isinstance(value, float) else str(value), float(value))
