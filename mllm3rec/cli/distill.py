"""`mllm3rec distill`: distil the traits of all candidates of some cases before they are ranked."""

from __future__ import annotations

import typer

from mllm3rec.cli.console import ConsoleEvents, emit, out, usage_table
from mllm3rec.cli.options import (
    BudgetUsd,
    CasesFile,
    DatasetOption,
    Json,
    LedgerFile,
    MaxCalls,
    MoteOption,
    Preset,
    Workers,
)


def distill(
    cases: CasesFile,
    dataset: DatasetOption = None,
    preset: Preset = "local",
    mote: MoteOption = None,
    workers: Workers = 1,
    calls: LedgerFile = None,
    budget_usd: BudgetUsd = None,
    max_calls: MaxCalls = None,
    as_json: Json = False,
) -> None:
    """Distil the traits of every candidate into the trait store. Exit code 1 if some answers could not be read."""
    import mllm3rec as m3

    with ConsoleEvents() as events:
        found = m3.distill(
            m3.load_cases(cases, None if dataset is None else m3.load_dataset(dataset)),
            preset=preset,
            mote=mote,
            workers=workers,
            ledger=calls,
            budget_usd=budget_usd,
            max_calls=max_calls,
            on_event=events,
        )
    facts = {
        "products": found.items,
        "traits": found.traits,
        "refused": found.refused,
        "unreadable": found.unparsable,
    }
    if as_json:
        emit({**facts, "calls": sum(usage.calls for usage in found.usage.values())})
    else:
        out.print(", ".join(f"{count} {what}" for what, count in facts.items()))
        out.print(usage_table(found.usage))
    raise typer.Exit(1 if found.unparsable else 0)
