"""`mllm3rec compare`: accuracy and cost of every mix of models on the same cases, and the mix to deploy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Column, Table

from mllm3rec.cli.console import ConsoleEvents, emit, format_estimate, format_hours, format_usd, out
from mllm3rec.cli.options import (
    BudgetUsd,
    CasesFile,
    DatasetOption,
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
    given_command,
)

if TYPE_CHECKING:
    from evaluate.experiments.grid_forecast import GridForecast
    from evaluate.experiments.grid_results import GridResults


def compare(
    context: typer.Context,
    cases: CasesFile,
    grid: Annotated[Path, typer.Option(help="TOML file with the models to try for each role, see docs/compare.md.")],
    directory: Annotated[Path, typer.Option("--out", help="Folder of the runs; the same command resumes.")],
    dataset: DatasetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only forecast the cost, from a few users per mix.")
    ] = False,
    search: Annotated[
        int | None, typer.Option(min=1, help="Number of mixes to try, chosen by quality and cost. Default: all.")
    ] = None,
    encoder: EncoderOption = None,
    budget_usd: BudgetUsd = None,
    prices: PricesFile = None,
    max_calls: MaxCalls = None,
    max_minutes: MaxMinutes = None,
    timeout: Timeout = None,
    max_tokens: MaxTokens = None,
    retry_unparsable: RetryUnparsable = False,
    fresh: Fresh = False,
    log: LogTo = None,
    as_json: Json = False,
) -> None:
    """Rank the same cases with every mix of models for MOPE, MOTE and MAR. Exit code 1 if a mix is incomplete."""
    import mllm3rec as m3
    from mllm3rec.api.experiments import forecast_comparison
    from mllm3rec.trackers.live_tracking import tracked
    from programs.lm.fresh_answers import fresh_answers

    with (
        fresh_answers(fresh and not dry_run, directory),
        ConsoleEvents() as console,
        tracked(None if dry_run else log, directory, console) as events,
    ):
        drawn = m3.load_cases(cases, dataset)
        if dry_run:
            forecast = forecast_comparison(
                drawn,
                grid,
                out=directory,
                search=search,
                budget_usd=budget_usd,
                max_calls=max_calls,
                max_minutes=max_minutes,
                timeout=timeout,
                max_tokens=max_tokens,
                on_event=events,
            )
        else:
            found = m3.compare(
                drawn,
                grid,
                out=directory,
                search=search,
                budget_usd=budget_usd,
                max_calls=max_calls,
                max_minutes=max_minutes,
                timeout=timeout,
                max_tokens=max_tokens,
                retry_unparsable=retry_unparsable,
                on_event=events,
                command=given_command(context),
            )
    if dry_run:
        _show_forecast(forecast, as_json)
        return
    if as_json:
        emit({**found.results.model_dump(mode="json"), "written": [str(path) for path in found.written]})
    else:
        _show(found.results, found.written)
    if found.stopped is not None:
        raise m3.BudgetExceededError(found.stopped)
    raise typer.Exit(0 if found.complete and all(row.readable for row in found.results.rows) else 1)


def _show(found: GridResults, written: Sequence[Path]) -> None:
    for row in found.rows:
        if row.warning is not None:
            out.print(f"{row.label}: {row.warning}", style="red")
    metrics = next((list(row.metrics) for row in found.rows if row.metrics), [])
    mix = Column("MOPE_MOTE_MAR", no_wrap=True)
    intervals = (f"{metric}/{found.list_size} [95% CI]" for metric in metrics)
    table = Table(mix, *intervals, "n", title="Accuracy of the mixes", title_justify="left")
    for row in found.rows:
        figures = [format_estimate(row.metrics[metric]) if row.metrics else "-" for metric in metrics]
        users = str(row.users) if not row.unresolved else f"{row.users} ({row.unresolved} unresolved)"
        table.add_row(row.label, *figures, users)
    if found.prior:
        table.add_row("prior alone, $0", *(format_estimate(found.prior[m]) for m in metrics), str(found.prior_users))
    out.print(table)
    columns = ("$ per user", "$ per pair", "seconds", "cache hits")
    table = Table(mix, *columns, title="Cost of each mix run alone", title_justify="left")
    for row in found.rows:
        cost = row.cost
        seconds = f"{cost.seconds:.0f}"
        table.add_row(row.label, format_usd(cost.per_user), format_usd(cost.per_pair), seconds, f"{row.stored:.0%}")
    out.print(table)
    table = Table("role", "from", "to", "gain", "$ per user", "seconds", title="One role changed", title_justify="left")
    for effect in found.effects:
        usd = format_usd(effect.usd_per_user)
        gain = f"{effect.metric} {format_estimate(effect.gain)}"
        table.add_row(effect.role, effect.before, effect.after, gain, usd, f"{effect.seconds:+.0f}")
    out.print(table)
    if found.recommendation is not None:
        out.print(str(found.recommendation))
    for path in written[:1]:
        out.print(f"written: {path}")


def _show_forecast(found: GridForecast, as_json: bool) -> None:
    if as_json:
        emit(found.model_dump())
        return
    name = Column("mix", no_wrap=True)
    table = Table(
        name, "calls", "tokens", "dollars", "hours", "with results of the mixes above: tokens", "dollars", "hours"
    )
    for mix in found.mixes:
        cells = []
        for work in (mix.alone, mix.marginal):
            cells += [f"{work.tokens_in + work.tokens_out:,.0f}", format_usd(work.usd), format_hours(work.seconds)]
        table.add_row(mix.label, f"{mix.alone.calls:,.0f}", *cells)
    out.print(table)
    if found.search is not None:
        most = found.search.most
        out.print(
            f"--search {found.search.mixes}: {found.search.mixes} of these {len(found.mixes)} mixes, chosen by their "
            f"results: at most {most.calls:,.0f} calls, {most.tokens_in + most.tokens_out:,.0f} tokens, "
            f"{format_usd(most.usd)}, hours: {format_hours(most.seconds)}"
        )
    out.print("forecast from a few measured users; their answers are kept and not paid again")
