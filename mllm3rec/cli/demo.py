"""`mllm3rec demo`: compile on the demo store with the models of this machine, and compare before with after."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mllm3rec.cli.compile_tables import show_manifest
from mllm3rec.cli.console import ConsoleEvents, emit, format_estimate, out, recovery_line, usage_table
from mllm3rec.cli.options import Json, ModelOption

if TYPE_CHECKING:
    from mllm3rec.api.demonstration import Demonstration


def demo(
    directory: Annotated[Path, typer.Option("--out", help="Where cases and runs go; re-run the command to resume.")],
    users: Annotated[int, typer.Option(min=1, help="Test users of the demo store.")] = 30,
    dev_users: Annotated[int, typer.Option(min=4, help="Dev users to compile on.")] = 10,
    trials: Annotated[int, typer.Option(min=1, help="Programs to try.")] = 4,
    model: ModelOption = None,
    as_json: Json = False,
) -> None:
    """Compile on dev users of the demo store, then compare the program before and after on untouched test users."""
    from mllm3rec.api.demonstration import demonstrate

    with ConsoleEvents() as events:
        found = demonstrate(directory, users, dev_users, trials, model, events)
    if as_json:
        figures = {name: result.figures.model_dump(mode="json") for name, result in found.results.items()}
        gains = {name: difference.model_dump() for name, difference in found.gain.items()}
        manifest = found.manifest.model_dump(mode="json")
        emit({**figures, "after minus before": gains, "manifest": manifest, "run": str(directory)})
    else:
        _show(found, directory)
    raise typer.Exit(0 if found.complete else 1)


def _show(found: Demonstration, directory: Path) -> None:
    show_manifest(found.manifest)
    out.print(_table(found))
    for metric, difference in found.gain.items():
        out.print(f"{metric}: {format_estimate(difference)} after minus before (paired, n={difference.n})")
    for name in ("before", "after"):
        recovered = found.results[name].recovered
        if recovered is not None:
            out.print(f"{name}: {recovery_line(recovered)}")
    out.print(usage_table(found.results["after"].usage_by_role))
    out.print(f"written: {directory} (artifact/search/report.html shows the search)")


def _table(found: Demonstration) -> Table:
    metrics = list(next(iter(found.results.values())).figures.metrics)
    table = Table("ranker", *(f"{m} [95% CI]" for m in metrics), "n", title="Demo store", title_justify="left")
    for name, result in found.results.items():
        figures = result.figures
        table.add_row(name, *(format_estimate(figures.metrics[m]) for m in metrics), str(figures.users))
        if "mar" in figures.components:
            alone = figures.components["mar"]
            table.add_row("  MAR alone", *(format_estimate(alone[m]) for m in metrics), str(figures.users))
    return table
