"""Writes an attack run: `metrics.json`, `rows.csv`, and the report with the attacks as its first tab."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from evaluate.attacks.attack_tab import attack_tab, with_escapes
from evaluate.attacks.results import Observation
from evaluate.attacks.runner import CLEAN_PHASE, AttackRun, AttackRunner, phase_of
from evaluate.data.data_warnings import find_data_warnings
from evaluate.report.export import to_csv
from evaluate.report.record import ProtocolRecord, RunRecord, StudyRecord
from evaluate.report.table import Table, count_cell, table_row, word_cell
from evaluate.report.write import write_report
from evaluate.runs.costs import stand_alone_usage
from evaluate.runs.directory import RunDirectory
from evaluate.runs.run_metrics import ranks_of
from evaluate.runs.session import run_manifest, versions
from programs.lm.ledger import by_role, read_calls
from programs.runtime.atomic import write_atomically

ROWS, _REPORT = "rows.csv", "report"

_PROTOCOL = "cases"


def write_attack_report(runner: AttackRunner, run: AttackRun, command: str = "") -> list[Path]:
    """Write the files of a run, finished or not.

    Args:
        command: Command that makes this run, for the report.

    Returns:
        The page first.
    """
    missing = {ranker: f"{left} rankings are missing" for ranker, left in run.missing.items()}
    if run.stopped is not None:
        missing = {ranker: f"{text}: {run.stopped}" for ranker, text in missing.items()}
    lines = [f"{ranker}: {text}." for ranker, text in missing.items()]
    tab = attack_tab(run.results, run.observations, runner.attacks, lines)
    written = write_report(_record(runner, run, missing, command), runner.directory / _REPORT, [tab])
    files = RunDirectory(runner.directory)
    write_atomically(files.metrics, run.results.model_dump_json(indent=2).encode() + b"\n")
    rows = runner.directory / ROWS
    write_atomically(rows, to_csv(row_table(run.observations)).encode("utf-8", "replace"))
    return [*written, files.metrics, rows]


def row_table(observations: Sequence[Observation]) -> Table:
    """One row per ranker, attack and user, for a spreadsheet."""
    rows = [
        table_row(
            *(word_cell(text) for text in (one.ranker, one.kind, one.attack, one.user_id, one.item_id)),
            *(count_cell(rank) for rank in (one.clean, one.control, one.attacked)),
            *(count_cell(rank) for rank in (one.target_clean, one.target_attacked)),
            word_cell("yes" if one.unparsable else "no"),
            word_cell(with_escapes("; ".join(one.traits))),
        )
        for one in observations
    ]
    columns = (
        "ranker", "kind", "attack", "user_id", "item_id", "clean", "control", "attacked", "target_clean",
        "target_attacked", "unparsable", "traits",
    )  # fmt: skip
    return Table("rows", "Ranks", "", columns, tuple(rows))


def _record(runner: AttackRunner, run: AttackRun, missing: dict[str, str], command: str) -> StudyRecord:
    """The clean rankings as a study: how good each ranker is without an attack."""
    cases, data = runner.cases, runner.cases.dataset
    protocol = ProtocolRecord.of(_PROTOCOL, {0: cases}, data, cases.training)
    calls = list(read_calls(RunDirectory(runner.directory).ledger))
    runs = []
    configurations = {ranker.name: ranker.configuration for ranker in runner.rankers}
    for ranker, rows in run.clean.items():
        own = [call for call in calls if call.phase == phase_of(ranker, CLEAN_PHASE)]
        runs.append(
            RunRecord(
                dataset=data.name,
                protocol=_PROTOCOL,
                draw=0,
                ranker=ranker,
                seed=None,
                manifest=run_manifest(ranker, configurations[ranker], cases),
                rows=rows,
                ranks=ranks_of(runner.chosen, rows),
                list_size=len(runner.chosen[0].candidates),
                unresolved=len(runner.chosen) - len(rows),
                usage=by_role(own),
                stand_alone=stand_alone_usage(own),
                command=command,
            )
        )
    names = [ranker for ranker, rows in run.clean.items() if rows]
    return StudyRecord(
        name="attacks",
        title=f"Attacks on {data.name}",
        reference="prior" if "prior" in names else names[0],
        protocols=[protocol],
        runs=runs,
        commands=[command] if command else [],
        hashes={"data": data.sha256, "cases": cases.sha256},
        versions=versions(),
        missing=missing,
        warnings=protocol.given_away,
        data_warnings=[f"{data.name}: {one.message}." for one in find_data_warnings(data)],
    )
