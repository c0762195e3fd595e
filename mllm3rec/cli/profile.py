"""`mllm3rec profile`: the motivation profiles of the users of a dataset, as a Parquet file."""

from __future__ import annotations

from pathlib import Path

import typer

from mllm3rec.cli.console import ConsoleEvents
from mllm3rec.cli.options import (
    BudgetUsd,
    ClusterAddress,
    ColumnNames,
    DatasetName,
    DryRun,
    Fresh,
    Json,
    LedgerFile,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    MopeOption,
    OutFile,
    Preset,
    PricesFile,
    Processes,
    ProgramOption,
    RetryUnparsable,
    SchemaFile,
    Timeout,
    Users,
    ViaOption,
    read_columns,
)
from mllm3rec.cli.whole import chosen_users, finish, fresh_rows
from programs.runtime.events import Note


def profile(
    dataset: DatasetName,
    users: Users = "all",
    out_file: OutFile = None,
    ranker: ProgramOption = None,
    preset: Preset = None,
    mope: MopeOption = None,
    schema: SchemaFile = None,
    processes: Processes = 1,
    cluster: ClusterAddress = None,
    dry_run: DryRun = False,
    via: ViaOption = "calls",
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
    """Make the motivation profile of every user, or of some, from all their interactions.

    Written to a Parquet file (--out, profiles.parquet) by a command that can be interrupted and repeated. Exit code 1
    if an answer is unparsable or calls failed.
    """
    import mllm3rec as m3

    to = out_file or Path("profiles.parquet")
    with fresh_rows(fresh, to), ConsoleEvents() as events:
        events(Note(f"loading {dataset}"))
        data = m3.load_dataset(dataset, read_columns(columns))
        job = m3.profile_all(
            data,
            to,
            users=chosen_users(users, list(data.sequences)),
            program=ranker or "embedding",
            preset=preset,
            mope=mope,
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
