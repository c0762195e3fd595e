"""`mllm3rec recommend`: the best items of the whole catalogue for one user, with checked reasons."""

from __future__ import annotations

from typing import Annotated

import typer

from mllm3rec.cli.console import ConsoleEvents, emit
from mllm3rec.cli.options import (
    BudgetUsd,
    ColumnNames,
    DatasetName,
    EncoderOption,
    Json,
    JudgeOption,
    LedgerFile,
    MarOption,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    ModelOption,
    MopeOption,
    MoteOption,
    Preset,
    PricesFile,
    RetryUnparsable,
    SchemaFile,
    Timeout,
    Weight,
    read_columns,
)
from mllm3rec.cli.recommendation_tables import recommendation_facts, show_recommendations
from programs.runtime.events import Note


def recommend(
    dataset: DatasetName,
    user: Annotated[str | None, typer.Option(help="Id of a user of the dataset.")] = None,
    history: Annotated[
        list[str] | None, typer.Option(help="Item id or free text, instead of --user; repeat it, oldest first.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Number of items to recommend.")] = 5,
    candidates: Annotated[int, typer.Option(min=1, max=90, help="Number of candidates that MAR ranks.")] = 15,
    ranker: Annotated[str, typer.Option(help="Name of a program, or the folder of an artifact.")] = "embedding",
    preset: Preset = "local",
    model: ModelOption = None,
    encoder: EncoderOption = None,
    mope: MopeOption = None,
    mote: MoteOption = None,
    mar: MarOption = None,
    judge: JudgeOption = None,
    weight: Weight = 0.3,
    schema: SchemaFile = None,
    calls: LedgerFile = None,
    budget_usd: BudgetUsd = None,
    prices: PricesFile = None,
    max_calls: MaxCalls = None,
    max_minutes: MaxMinutes = None,
    timeout: Timeout = None,
    max_tokens: MaxTokens = None,
    retry_unparsable: RetryUnparsable = False,
    columns: ColumnNames = None,
    as_json: Json = False,
) -> None:
    """Recommend K items to one user: profile, candidates from the prior, ranking, reasons, check of the reasons."""
    with ConsoleEvents() as events:
        events(Note(f"loading {dataset}"))
        import mllm3rec as m3

        data = m3.load_dataset(dataset, read_columns(columns))
        for note in data.notes:
            events(Note(f"note: {note}"))
        program = m3.program(
            ranker,
            data,
            preset=preset,
            model=model,
            mope=mope,
            mote=mote,
            mar=mar,
            judge=judge,
            timeout=timeout,
            max_tokens=max_tokens,
            schema=schema,
            weight=weight,
            budget_usd=budget_usd,
            max_calls=max_calls,
            max_minutes=max_minutes,
            ledger=calls,
            retry_unparsable=retry_unparsable,
            on_event=events,
        )
        found = program.recommend(history, user=user, k=k, candidates=candidates)
    if found.status != "ok":
        raise m3.InputError(f"no answer of the models could be read, so nothing is recommended: {found.error}")
    if as_json:
        emit(recommendation_facts(found))
    else:
        show_recommendations(found)
