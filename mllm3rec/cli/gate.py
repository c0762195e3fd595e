"""`mllm3rec gate`: fit a gate on a finished run of a program on dev users."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllm3rec.cli.console import emit, out
from mllm3rec.cli.options import CasesFile, DatasetOption, Json


def gate(
    cases: CasesFile,
    run: Annotated[Path, typer.Argument(help="Finished run of a program on these cases, of dev users.")],
    file: Annotated[Path, typer.Option("--out", help="Gate file to write, for `mllm3rec evaluate --gate`.")],
    dataset: DatasetOption = None,
    as_json: Json = False,
) -> None:
    """Fit the fusion weight by user on recorded scores; asks no model."""
    import mllm3rec as m3

    drawn = m3.load_cases(cases, dataset)
    fitted = m3.fit_gate_on_run(drawn, run, out=file)
    if as_json:
        emit({**fitted.model_dump(mode="json"), "file": str(file)})
        return
    for line in fitted.lines:
        out.print(line, markup=False)
    out.print(f"written: {file}")
