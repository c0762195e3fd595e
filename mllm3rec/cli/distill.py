"""`mllm3rec distill`: make the traits of all candidates before they are ranked."""

from __future__ import annotations

import typer

from mllm3rec.cli.console import ConsoleEvents, emit, out, say, usage_table
from mllm3rec.cli.options import (
    BudgetUsd,
    CasesFile,
    DatasetOption,
    Json,
    LedgerFile,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    MoteOption,
    Preset,
    PricesFile,
    RetryUnparsable,
    Timeout,
    ViaOption,
    Workers,
)


def distill(
    cases: CasesFile,
    dataset: DatasetOption = None,
    preset: Preset = "local",
    mote: MoteOption = None,
    workers: Workers = 1,
    via: ViaOption = "calls",
    calls: LedgerFile = None,
    budget_usd: BudgetUsd = None,
    prices: PricesFile = None,
    max_calls: MaxCalls = None,
    max_minutes: MaxMinutes = None,
    timeout: Timeout = None,
    max_tokens: MaxTokens = None,
    retry_unparsable: RetryUnparsable = False,
    as_json: Json = False,
) -> None:
    """Make the traits of all candidates and keep them in the trait store.

    Exit code 1 if an answer is unparsable, or if the provider refuses more than half of the items.
    """
    import mllm3rec as m3
    from evaluate.runs.run_metrics import is_readable

    with ConsoleEvents() as events:
        found = m3.distill(
            m3.load_cases(cases, dataset),
            preset=preset,
            mote=mote,
            timeout=timeout,
            max_tokens=max_tokens,
            retry_unparsable=retry_unparsable,
            workers=workers,
            via=via,
            ledger=calls,
            budget_usd=budget_usd,
            max_calls=max_calls,
            max_minutes=max_minutes,
            on_event=events,
        )
    items, traits, refused, unparsable = found.items, found.traits, found.refused, found.unparsable
    if unparsable:
        say(f"{unparsable} of {items} items: no answer of the model could be read")
    if found.refused_items:
        say(f"{found.refused_items} of {items} items: no traits, because the provider refused their text")
    if as_json:
        facts = {"products": items, "traits": traits, "refused": refused, "unreadable": unparsable}
        facts["refused_items"] = found.refused_items
        emit({**facts, "calls": sum(usage.calls for usage in found.usage.values())})
    else:
        out.print(f"{items} items, {traits} traits, {refused} phrases refused, {unparsable} items unparsable")
        out.print(usage_table(found.usage))
    raise typer.Exit(1 if unparsable or not is_readable(found.refused_items, items) else 0)
