"""`mllm3rec recommend`: the best items of the whole catalogue for one user, with checked reasons, or for many users."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mllm3rec.cli.console import ConsoleEvents, emit
from mllm3rec.cli.options import (
    BudgetUsd,
    ClusterAddress,
    ColumnNames,
    DatasetName,
    DryRun,
    EncoderOption,
    Fresh,
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
    OutFile,
    Preset,
    PricesFile,
    Processes,
    RetryUnparsable,
    SchemaFile,
    Timeout,
    ViaOption,
    Weight,
    read_columns,
)
from mllm3rec.cli.recommendation_tables import recommendation_facts, show_recommendations
from mllm3rec.cli.whole import chosen_users, finish, fresh_rows
from programs.runtime.events import Note


def recommend(
    dataset: DatasetName,
    user: Annotated[str | None, typer.Option(help="Id of a user of the dataset.")] = None,
    users: Annotated[
        str | None,
        typer.Option(
            help="Many users, into a Parquet file: all, a number N (the first N), or a file with one id a line."
        ),
    ] = None,
    out_file: OutFile = None,
    explain: Annotated[bool, typer.Option("--explain", help="With --users: a checked reason for each item.")] = False,
    processes: Processes = 1,
    cluster: ClusterAddress = None,
    dry_run: DryRun = False,
    via: ViaOption = "calls",
    history: Annotated[
        list[str] | None, typer.Option(help="Item id or free text, instead of --user; repeat it, oldest first.")
    ] = None,
    k: Annotated[int, typer.Option(min=1, help="Number of items to recommend.")] = 5,
    candidates: Annotated[int, typer.Option(min=1, max=90, help="Number of candidates that MAR ranks.")] = 15,
    ranker: Annotated[str, typer.Option(help="Name of a program, or the folder of an artifact.")] = "embedding",
    preset: Preset = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    mope: MopeOption = None,
    mote: MoteOption = None,
    mar: MarOption = None,
    judge: JudgeOption = None,
    weight: Weight = None,
    schema: SchemaFile = None,
    calls: LedgerFile = None,
    budget_usd: BudgetUsd = None,
    prices: PricesFile = None,
    max_calls: MaxCalls = None,
    max_minutes: MaxMinutes = None,
    timeout: Timeout = None,
    max_tokens: MaxTokens = None,
    retry_unparsable: RetryUnparsable = False,
    fresh: Fresh = False,
    columns: ColumnNames = None,
    as_json: Json = False,
) -> None:
    """Recommend K items to one user: profile, candidates from the prior, ranking, reasons, check of the reasons.

    With --users to many, into a Parquet file (--out, recommendations.parquet), by a command that can be interrupted and
    repeated; exit code 1 if an answer is unparsable or calls failed.
    """
    import mllm3rec as m3
    from programs.lm.fresh_answers import fresh_answers

    if users is not None:
        if user is not None or history:
            raise m3.InputError("give --users, or one --user or --history")
        to = out_file or Path("recommendations.parquet")
        with fresh_rows(fresh, to), ConsoleEvents() as events:
            events(Note(f"loading {dataset}"))
            data = m3.load_dataset(dataset, read_columns(columns))
            job = m3.recommend_all(
                data,
                to,
                users=chosen_users(users, list(data.sequences)),
                k=k,
                candidates=candidates,
                explain=explain,
                program=ranker,
                preset=preset,
                model=model,
                mope=mope,
                mote=mote,
                mar=mar,
                judge=judge,
                weight=weight,
                schema_file=schema,
                processes=processes,
                cluster=cluster,
                dry_run=dry_run,
                via=via,
                ledger=calls,
                budget_usd=budget_usd,
                max_calls=max_calls,
                max_minutes=max_minutes,
                timeout=timeout,
                max_tokens=max_tokens,
                retry_unparsable=retry_unparsable,
                on_event=events,
            )
        raise typer.Exit(finish(job, as_json))
    if out_file or explain or processes != 1 or cluster or dry_run or via != "calls":
        raise m3.InputError(
            "--out, --explain, --processes, --cluster, --dry-run and --via are for many users; add --users"
        )
    with fresh_answers(fresh), ConsoleEvents() as events:
        events(Note(f"loading {dataset}"))
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
