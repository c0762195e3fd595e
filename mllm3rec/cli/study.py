"""`mllm3rec study`: run all rankers of a study file, and report them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mllm3rec.cli.console import ConsoleEvents, emit, format_usd, out
from mllm3rec.cli.options import (
    BudgetUsd,
    EncoderOption,
    Json,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    PricesFile,
    RetryUnparsable,
    Timeout,
)

app = typer.Typer(no_args_is_help=True, help="Run and report all rankers, datasets and protocols of one study file.")
StudyFile = Annotated[Path, typer.Argument(help="Study file (TOML), see docs/study.md.")]
Directory = Annotated[
    Path | None, typer.Option("--out", help="Folder of the runs. Default: runs/NAME, with the name of the study file.")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option("--data", help="NAME=DIRECTORY: directory of a dataset; repeatable."),
]


@app.command()
def run(
    study: StudyFile,
    directory: Directory = None,
    data: DataOption = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Run only what has this text in its name (dataset/protocol/draw/ranker); repeatable."),
    ] = None,
    encoder: EncoderOption = None,
    budget_usd: BudgetUsd = None,
    prices: PricesFile = None,
    max_calls: MaxCalls = None,
    max_minutes: MaxMinutes = None,
    timeout: Timeout = None,
    max_tokens: MaxTokens = None,
    retry_unparsable: RetryUnparsable = False,
    as_json: Json = False,
) -> None:
    """Make all runs that are missing, then write the report. The same command resumes a stopped study.

    Exit code 1 if a run is incomplete, or if no answer could be read for more than half of its users.

    The source of a dataset is a directory, `demo`, or a name. A name is a folder in ./data or in the folder that
    MLLM3REC_DATA names.
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
            max_minutes=max_minutes,
            timeout=timeout,
            max_tokens=max_tokens,
            retry_unparsable=retry_unparsable,
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
    raise typer.Exit(0 if not found.incomplete and all(run.readable for run in found.record.runs) else 1)


@app.command()
def status(study: StudyFile, directory: Directory = None, as_json: Json = False) -> None:
    """Show the state and the cost of every run. Exit code 1 if a run is not done."""
    from evaluate.experiments.study_runner import run_states
    from mllm3rec.api.experiments import read_spec, study_root
    from programs.lm.ledger import interrupted_note

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
        if interrupted := sum(row.get("interrupted", 0) for row in rows):
            out.print(interrupted_note(interrupted))
        out.print(f"{len(rows) - left} of {len(rows)} runs done")
    raise typer.Exit(1 if left else 0)


@app.command()
def report(study: StudyFile, directory: Directory = None, data: DataOption = None, as_json: Json = False) -> None:
    """Write the report of all runs so far: one HTML file, and its tables as CSV, Markdown and LaTeX."""
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
