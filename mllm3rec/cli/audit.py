"""`mllm3rec audit`: check whether the metrics of a table are possible."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from mllm3rec.cli.console import emit, out
from mllm3rec.cli.options import Json

if TYPE_CHECKING:
    from evaluate.stats.audit import Finding


def audit(
    path: Annotated[
        Path, typer.Argument(help="CSV table (method,dataset,HR@5,NDCG@5,HR@10,NDCG@10), or a run directory.")
    ],
    as_json: Json = False,
) -> None:
    """Check that HR and NDCG of each row are possible together. Exit code 1 if a row is impossible."""
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


def _of_run(directory: Path) -> Finding:
    from evaluate.runs.run_metrics import ranks_and_manifest
    from evaluate.stats.audit import audit_ranks

    manifest, ranks, size = ranks_and_manifest(directory)
    return audit_ranks(ranks, method=manifest.ranker, dataset=str(directory), list_size=size)
