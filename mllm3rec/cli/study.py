"""`mllm3rec study`: many runs out of one file, resumable, and one report about them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mllm3rec.cli.console import ConsoleEvents, emit, format_usd, out
from mllm3rec.cli.options import BudgetUsd, Json, MaxCalls

app = typer.Typer(no_args_is_help=True, help="Run a whole evaluation described by one file, and report it.")
StudyFile = Annotated[Path, typer.Argument(help="A study, as TOML; docs/study.md describes it.")]
Directory = Annotated[
    Path | None, typer.Option("--out", help="Where runs go; runs/NAME, with the file's name, unless given.")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option("--data", help="NAME=DIRECTORY: where a dataset of the study is. Repeatable."),
]


@app.command()
def run(
    study: StudyFile,
    directory: Directory = None,
    data: DataOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run only runs whose path (dataset/protocol/draw/ranker) contains this text. Repeatable."),
    ] = None,
    budget_usd: BudgetUsd = None,
    max_calls: MaxCalls = None,
    as_json: Json = False,
) -> None:
    """Run what is missing, then write the report. Re-run the command to resume.

    A dataset's source is a directory, `demo`, or a name: then a folder of that name is looked for in ./data and in the
    folder that MLLM3REC_DATA names.
    """
    import mllm3rec as m3

    with ConsoleEvents() as events:
        found = m3.run_study(
            study,
            out=directory,
            data=_sources(data),
            only=only or (),
            budget_usd=budget_usd,
            max_calls=max_calls,
            on_event=events,
        )
    if as_json:
        written = [str(path) for path in found.written]
        facts = {"study": found.record.name, "runs": found.runs, "incomplete": list(found.incomplete)}
        emit({**facts, "warnings": list(found.record.warnings), "written": written})
    else:
        _warn(found.record.warnings)
        out.print(f"{found.runs - len(found.incomplete)} of {found.runs} runs complete")
        _say_written(found.written)
    if found.stopped is not None:
        raise m3.BudgetExceededError(found.stopped)
    raise typer.Exit(1 if found.incomplete else 0)


@app.command()
def status(study: StudyFile, directory: Directory = None, as_json: Json = False) -> None:
    """What is done, what is left, what was paid. Exit code 1 while something is left."""
    from evaluate.experiments.study_runner import run_states
    from mllm3rec.api.experiments import read_spec, study_root

    spec = read_spec(study)
    rows = list(run_states(spec, study_root(study, spec, directory)))
    left = sum(row["state"] != "done" for row in rows)
    if as_json:
        emit({"study": spec.name, "runs": rows, "left": left})
    else:
        table = Table("run", "state", "users", "calls", "dollars")
        for row in rows:
            table.add_row(row["run"], row["state"], str(row["users"]), str(row["calls"]), format_usd(row["usd"]))
        out.print(table)
        out.print(f"{len(rows) - left} of {len(rows)} runs done")
    raise typer.Exit(1 if left else 0)


@app.command()
def report(study: StudyFile, directory: Directory = None, data: DataOption = None, as_json: Json = False) -> None:
    """Write the report of what has been run so far: one HTML file, and its tables as CSV, Markdown and LaTeX."""
    from mllm3rec.api.experiments import report_study

    with ConsoleEvents() as events:
        found = report_study(study, out=directory, data=_sources(data), on_event=events)
    if as_json:
        written = [str(path) for path in found.written]
        emit({"study": found.record.name, "warnings": list(found.record.warnings), "written": written})
        return
    _warn(found.record.warnings)
    _say_written(found.written)


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        out.print(f"warning: {warning}", style="yellow")


def _say_written(written: Sequence[Path]) -> None:
    page, *tables = written
    out.print(f"written: {page}")
    out.print(f"written: {len(tables)} tables as CSV, Markdown and LaTeX in {tables[0].parent}")


def _sources(data: Sequence[str] | None) -> dict[str, str]:
    from mllm3rec import InputError

    sources = {}
    for entry in data or ():
        name, equals, source = entry.partition("=")
        if not (name and equals and source):
            raise InputError(f"--data {entry!r}: write NAME=DIRECTORY")
        sources[name] = source
    return sources
