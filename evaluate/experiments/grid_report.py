"""Writes a comparison: `comparison.json`, and the report with the comparison as its first tab."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from evaluate.data.data_warnings import find_data_warnings
from evaluate.experiments.grid_results import GridResults, MixRun
from evaluate.experiments.grid_runner import GridRunner
from evaluate.experiments.grid_tab import grid_tab
from evaluate.report.record import ProtocolRecord, RunRecord, StudyRecord, further_cutoffs
from evaluate.report.write import write_report
from evaluate.runs.costs import stand_alone_usage
from evaluate.runs.further_metrics import background_of, further_metrics
from evaluate.runs.journal import read_journal
from programs.lm.ledger import by_role, read_calls
from programs.runtime.atomic import write_atomically

RECORD = "comparison.json"


def write_comparison(
    found: GridResults, runner: GridRunner, runs: Sequence[MixRun], command: str, versions: Mapping[str, str]
) -> list[Path]:
    """Write `comparison.json` and the report, whose first tab is the comparison.

    Returns:
        Paths of the files, the page first.
    """
    record = _record(runner, runs, command, versions)
    written = write_report(record, runner.root / "report", [grid_tab(found, runner.grid, record.protocols[0])])
    path = runner.root / RECORD
    write_atomically(path, found.model_dump_json(indent=2).encode() + b"\n")
    return [*written, path]


def _record(runner: GridRunner, runs: Sequence[MixRun], command: str, versions: Mapping[str, str]) -> StudyRecord:
    grid, case_file, data, directory = runner.grid, runner.cases, runner.cases.dataset, runner.root
    protocol = ProtocolRecord.of("cases", {0: case_file}, data, runner.training)
    background, size = background_of(data, runner.training), len(case_file[0].candidates)
    records = []
    for run in runs:
        path = directory / run.mix.label
        if not run.rows:
            continue
        calls = list(read_calls(path / "ledger.jsonl"))
        records.append(
            RunRecord(
                dataset=data.name,
                protocol=protocol.name,
                draw=0,
                ranker=run.mix.label,
                seed=None,
                manifest=read_journal(path)[0],
                rows=run.rows,
                ranks=run.ranks,
                list_size=size,
                unresolved=run.unresolved,
                usage=by_role(calls),
                stand_alone=stand_alone_usage(calls),
                command=command,
                further=further_metrics(case_file, run.rows, further_cutoffs(size), background),
            )
        )
    return StudyRecord(
        name="comparison",
        title=f"Mixes of {grid.ranker} on {data.name}",
        reference=grid.reference_label,
        protocols=[protocol],
        runs=records,
        commands=[command],
        hashes={"data": data.sha256, "cases": case_file.sha256},
        versions=versions,
        missing={run.mix.label: run.stopped or "no row" for run in runs if run.unresolved},
        warnings=protocol.given_away,
        data_warnings=[f"{data.name}: {one.message}." for one in find_data_warnings(data)],
    )
