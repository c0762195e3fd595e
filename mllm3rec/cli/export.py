"""`mllm3rec export`: write a run for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllm3rec.cli.console import emit, out, say
from mllm3rec.cli.options import Json

app = typer.Typer(no_args_is_help=True, help="Write a run for other tools.")


@app.callback()
def export() -> None:
    """Write a run for other tools."""


@app.command()
def trec(
    run: Annotated[Path, typer.Argument(help="Run directory, as of `mllm3rec evaluate --out`.")],
    folder: Annotated[Path, typer.Option("--out", help="Folder for run.txt and qrels.txt.")],
    as_json: Json = False,
) -> None:
    """Write rankings and targets as TREC run and qrels, for trec_eval, ir-measures and the like."""
    from evaluate.runs.trec import write_trec

    files = write_trec(run, folder)
    if files.unresolved:
        say(f"note: {files.unresolved} unresolved users are left out; others would count them as misses")
    if as_json:
        emit({**files._asdict(), "run": str(files.run), "qrels": str(files.qrels)})
        return
    for path in (files.run, files.qrels):
        out.print(f"{files.users} users: {path}")
