"""`mllm3rec study`: run all rankers of a study file, and report them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mllm3rec.cli.console import ConsoleEvents, emit, figure_table, format_hours, format_usd, out
from mllm3rec.cli.options import (
    BudgetUsd,
    EncoderOption,
    Fresh,
    Json,
    LogTo,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    PricesFile,
    RetryUnparsable,
    Timeout,
    assignments,
)

if TYPE_CHECKING:
    from evaluate.experiments.study_forecast import RankerForecast

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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only forecast the cost; asks no model.")] = False,
    fresh: Fresh = False,
    log: LogTo = None,
    as_json: Json = False,
) -> None:
    """Make all runs that are missing, then write the report. The same command resumes a stopped study.

    Before any model is asked, a forecast shows calls, tokens and dollars of each ranker.

    Exit code 1 if a run is incomplete, or if no answer could be read for more than half of its users.

    The source of a dataset is a directory, `demo`, or a name. A name is a folder in ./data or in the folder that
    MLLM3REC_DATA names.
    """
    import mllm3rec as m3
    from mllm3rec.api.experiments import forecast_study, read_spec, study_root
    from mllm3rec.trackers.live_tracking import tracked
    from programs.lm.fresh_answers import fresh_answers

    sources = assignments("--data", data, "NAME=DIRECTORY")
    chosen: dict[str, Any] = {"out": directory, "data": sources, "only": only or (), "max_tokens": max_tokens}
    if dry_run:
        with ConsoleEvents() as events:
            forecast = forecast_study(study, on_event=events, **chosen)
        _show_forecast(forecast, as_json)
        return
    folder = study_root(study, read_spec(study), directory)
    with fresh_answers(fresh, folder), ConsoleEvents() as console, tracked(log, folder, console) as events:
        found = m3.run_study(
            study,
            **chosen,
            budget_usd=budget_usd,
            max_calls=max_calls,
            max_minutes=max_minutes,
            timeout=timeout,
            retry_unparsable=retry_unparsable,
            on_event=events,
        )
    if as_json:
        written = [str(path) for path in found.written]
        facts = {"study": found.record.name, "runs": found.runs, "incomplete": list(found.incomplete)}
        facts |= {"forecast": [_forecast_facts(one) for one in found.forecast]}
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
        found = report_study(study, out=directory, data=assignments("--data", data, "NAME=DIRECTORY"), on_event=events)
    if as_json:
        written = [str(path) for path in found.written]
        emit({"study": found.record.name, "warnings": list(found.record.warnings), "written": written})
        return
    _warn(found.record.warnings)
    _say_written(found.written)


def _show_forecast(found: Sequence[RankerForecast], as_json: bool) -> None:
    if as_json:
        emit({"forecast": [_forecast_facts(one) for one in found]})
        return
    if not found:
        out.print("Of the runs that are left none asks a language model: nothing to pay.")
        return
    columns = ("users", "calls", "tokens in", "tokens out", "dollars", "hours")
    table = figure_table("Forecast of the runs that are left, with one worker", "ranker", *columns)
    for one in found:
        work = one.work
        figures = [f"{work.calls:,.0f}", f"{work.tokens_in:,.0f}", f"{work.tokens_out:,.0f}"]
        figures += [format_usd(work.usd), format_hours(work.seconds)]
        table.add_row(one.ranker, f"{one.users:,}", *("-" for _ in figures) if one.problem else figures)
    out.print(table)
    for one in found:
        out.print(f"{one.ranker}: {one.basis}", markup=False)
    out.print("Stored answers, and those that rankers share, cost nothing; here they count as asked.")


def _forecast_facts(one: RankerForecast) -> dict[str, Any]:
    return {**one.model_dump(), "basis": one.basis}


def _warn(warnings: Sequence[str]) -> None:
    for warning in warnings:
        out.print(f"warning: {warning}", style="yellow")


def _say_written(written: Sequence[Path]) -> None:
    page, *tables = written
    out.print(f"written: {page}")
    out.print(f"written: {len(tables)} tables as CSV, Markdown and LaTeX in {tables[0].parent}")
