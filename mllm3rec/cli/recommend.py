"""`mllm3rec recommend`: items from the whole catalogue for one user, with reasons that were checked."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from mllm3rec.cli.console import ConsoleEvents, emit, out
from mllm3rec.cli.options import (
    BudgetUsd,
    DatasetName,
    Json,
    JudgeOption,
    LedgerFile,
    MarOption,
    MaxCalls,
    ModelOption,
    MopeOption,
    MoteOption,
    Preset,
    SchemaFile,
    Weight,
)

if TYPE_CHECKING:
    from mllm3rec.api.recommendation import Recommendations


def recommend(
    dataset: DatasetName,
    user: Annotated[str | None, typer.Option(help="A user of the dataset, whose interactions are the history.")] = None,
    history: Annotated[
        list[str] | None, typer.Option(help="An item id or a free text, instead of --user; repeat it, oldest first.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="How many items.")] = 5,
    candidates: Annotated[int, typer.Option(min=1, max=90, help="Items the prior retrieves for MAR to rank.")] = 15,
    ranker: Annotated[str, typer.Option(help="Name of a program, or the folder of an artifact.")] = "embedding",
    preset: Preset = "local",
    model: ModelOption = None,
    mope: MopeOption = None,
    mote: MoteOption = None,
    mar: MarOption = None,
    judge: JudgeOption = None,
    weight: Weight = 0.3,
    schema: SchemaFile = None,
    calls: LedgerFile = None,
    budget_usd: BudgetUsd = None,
    max_calls: MaxCalls = None,
    as_json: Json = False,
) -> None:
    """Profile a user, retrieve candidates with the prior, rank, explain, check, and show the first K items."""
    import mllm3rec as m3

    with ConsoleEvents() as events:
        data = m3.load_dataset(dataset)
        for note in data.notes:
            events(m3.Note(f"note: {note}"))
        program = m3.program(
            ranker,
            data,
            preset=preset,
            model=model,
            mope=mope,
            mote=mote,
            mar=mar,
            judge=judge,
            schema=schema,
            weight=weight,
            budget_usd=budget_usd,
            max_calls=max_calls,
            ledger=calls,
            on_event=events,
        )
        found = program.recommend(history, user=user, k=k, candidates=candidates)
    if as_json:
        emit(_facts(found))
        raise typer.Exit(0 if found.status == "ok" else 1)
    _show(found)
    if found.status != "ok":
        raise m3.InputError(f"no answer of the models could be read, the prior decided alone: {found.error}")


def _facts(found: Recommendations) -> dict[str, Any]:
    motivations = found.profile.motivations if found.profile else ()
    return {
        "user": found.user,
        "profile": [
            motivation.model_dump() | {"purchases": list(titles)}
            for motivation, titles in zip(motivations, found.evidence, strict=True)
        ],
        "recommendations": [asdict(item) for item in found],
        "filtered": [reason.model_dump() for reason in found.filtered],
        "status": found.status,
        "usage": found.usage.model_dump(),
    }


def _show(found: Recommendations) -> None:
    motivations = found.profile.motivations if found.profile else ()
    title = f"Profile of {found.user}"
    table = Table("motivation", "description", "strength", "rests on", title=title, title_justify="left")
    for motivation, titles in zip(motivations, found.evidence, strict=True):
        description, evidence = Text(motivation.description), Text("\n".join(titles))
        table.add_row(motivation.dimension, description, motivation.strength, evidence)
    out.print(table)
    title = f"Top {len(found)}"
    table = Table("", "item", "traits", "reason", "checked", title=title, title_justify="left", show_lines=True)
    for rank, item in enumerate(found, start=1):
        reason = Text(item.reason or "-")
        if item.warning:
            reason.append(f"\n({item.warning})", style="yellow")
        checked = "yes" if item.reason_checked else "no"
        table.add_row(str(rank), Text(f"{item.title}\n{item.item_id}"), Text("\n".join(item.traits)), reason, checked)
    out.print(table)
    out.print(f"{len(found.filtered)} items were filtered because their reason did not hold")
    out.print(f"{found.usage.calls} calls, {found.usage.cache_hits} cache hits, {found.usage.seconds:.0f} s")
