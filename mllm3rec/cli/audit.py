"""`mllm3rec audit`: check whether the metrics of a table are possible, and whether cases leak their targets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from mllm3rec.cli.console import emit, out, say
from mllm3rec.cli.options import DatasetOption, Json

if TYPE_CHECKING:
    from evaluate.stats.audit import Finding

_SHOWN = 20


def audit(
    path: Annotated[
        Path,
        typer.Argument(
            help="CSV table (method,dataset,HR@5,NDCG@5,HR@10,NDCG@10), run directory, or cases file (.jsonl)."
        ),
    ],
    dataset: DatasetOption = None,
    as_json: Json = False,
) -> None:
    """Check that HR and NDCG of each row are possible together, or that cases do not leak. Exit code 1 if not."""
    if path.suffix == ".jsonl" and not path.is_dir():
        raise typer.Exit(_audit_cases(path, dataset, as_json))
    from evaluate.stats.audit import audit_row, read_metric_table

    findings = [_of_run(path)] if path.is_dir() else [audit_row(row) for row in read_metric_table(path)]
    impossible = sum(finding.impossible for finding in findings)
    if as_json:
        emit({"impossible_rows": impossible, "rows": [finding.model_dump(mode="json") for finding in findings]})
    else:
        table = Table("method", "dataset", "verdict", "why")
        for finding in findings:
            why = "; ".join([*map(str, finding.violations), *finding.notes])
            verdict = Text("impossible", "red") if finding.impossible else Text("possible", "green")
            table.add_row(finding.method, finding.dataset, verdict, why)
        out.print(table)
        out.print(f"{impossible} of {len(findings)} rows are impossible")
    raise typer.Exit(1 if impossible else 0)


def _audit_cases(path: Path, dataset: str | None, as_json: bool) -> int:
    """Draw the cases again, and search them and their training data for leaks; the exit code."""
    import mllm3rec as m3

    cases = m3.load_cases(path, dataset)
    leaks, warnings = cases.leaks, cases.warnings()
    for warning in warnings:
        say(f"warning: {warning}")
    if as_json:
        found = {"leaks": [asdict(leak) for leak in leaks], "warnings": [asdict(warning) for warning in warnings]}
        emit({"cases": str(path), "users": len(cases), "sha256": cases.sha256, **found})
    else:
        for leak in leaks[:_SHOWN]:
            out.print(str(leak))
        more = f", of which {_SHOWN} are shown" if len(leaks) > _SHOWN else ""
        out.print(f"{len(cases)} cases, {len(leaks)} leaks{more}, {len(warnings)} warnings")
    return 1 if leaks else 0


def _of_run(directory: Path) -> Finding:
    from evaluate.runs.run_metrics import ranks_and_manifest
    from evaluate.stats.audit import audit_ranks

    manifest, ranks, size = ranks_and_manifest(directory)
    return audit_ranks(ranks, method=manifest.ranker, dataset=str(directory), list_size=size)
