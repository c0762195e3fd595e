"""`mllm3rec demo`: the whole of it on the demo store with the models of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from evaluate.cases import Protocol, draw_cases, write_cases
from evaluate.rankers import BASELINES
from mllm3rec.console import emit, figure, out, recovery_line, say, usage_table
from mllm3rec.evaluate import LEDGER, run_into
from mllm3rec.settings import Json, ModelOption, ModelOptions, configuration, open_dataset, open_ledger, workshop
from programs.program import Fusion
from signatures.schema import CONSUMER

PROGRAMS_SHOWN = ("embedding", "listwise", "pointwise")


def demo(
    directory: Annotated[Path, typer.Option("--out", help="Where cases and runs go; the same command resumes.")],
    users: Annotated[int, typer.Option(min=1, help="Test shoppers of the demo store.")] = 20,
    model: ModelOption = None,
    as_json: Json = False,
) -> None:
    """Rank for simulated shoppers with every baseline and with MOPE, MOTE and MAR, and show one table."""
    data = open_dataset("demo")
    protocol = Protocol(dataset="demo", source="demo", dataset_sha256=data.sha256, part="test", users=users)
    case_file = write_cases(directory / "cases.jsonl", protocol, draw_cases(data, protocol))
    roles, fusion = ModelOptions(model=model).roles(), Fusion()
    ledger = open_ledger(directory / LEDGER, None, None)
    shop = workshop(data, protocol.target, roles, ledger, fusion=fusion)
    finished = {}
    for name in (*BASELINES, *PROGRAMS_SHOWN):
        settings = {} if name in BASELINES else configuration(roles, fusion, CONSUMER, explain=0)
        say(f"{name}: {len(case_file.cases)} shoppers")
        finished[name] = run_into(directory / name, name, shop.ranker(name), settings, case_file, ledger)
    complete = all(one.outcome.complete for one in finished.values())
    if as_json:
        emit({name: one.results.model_dump(mode="json") for name, one in finished.items()} | {"run": str(directory)})
        raise typer.Exit(0 if complete else 1)
    metrics = list(next(iter(finished.values())).results.metrics)
    table = Table("ranker", *(f"{m} [95% CI]" for m in metrics), "n", title="Demo store", title_justify="left")
    for name, one in finished.items():
        table.add_row(name, *(figure(one.results.metrics[m]) for m in metrics), str(one.results.users))
        if name in PROGRAMS_SHOWN:
            alone = one.results.components["mar"]
            table.add_row("  MAR alone", *(figure(alone[m]) for m in metrics), str(one.results.users))
    out.print(table)
    out.print("Programs fuse MAR with the prior; their first line is the fusion.")
    recovered = finished[PROGRAMS_SHOWN[-1]].recovered
    if recovered is not None:
        out.print(recovery_line(recovered))
    out.print(usage_table(ledger.by_role()))
    out.print(f"written: {directory} (metrics.json, journal.jsonl and ledger.jsonl in it)", markup=False)
    raise typer.Exit(0 if complete else 1)
