"""`mllm3rec distill`: make traits before they are needed, of the candidates of cases or of a whole dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mllm3rec.cli.console import ConsoleEvents, emit, out, say, usage_table
from mllm3rec.cli.options import (
    BudgetUsd,
    ClusterAddress,
    ColumnNames,
    DatasetOption,
    DryRun,
    Fresh,
    Json,
    LedgerFile,
    MaxCalls,
    MaxMinutes,
    MaxTokens,
    MoteOption,
    OutFile,
    Preset,
    PricesFile,
    Processes,
    ProgramOption,
    RetryUnparsable,
    Timeout,
    ViaOption,
    Workers,
    read_columns,
)
from mllm3rec.cli.whole import finish, fresh_rows
from programs.runtime.errors import InputError

if TYPE_CHECKING:
    from mllm3rec.api.distillation import Distillation


def distill(
    source: Annotated[
        str,
        typer.Argument(
            metavar="CASES|DATASET",
            help="A cases file (its candidates), or a dataset directory or `demo` (every item).",
            show_default=False,
        ),
    ],
    dataset: DatasetOption = None,
    out_file: OutFile = None,
    ranker: ProgramOption = None,
    preset: Preset = None,
    mote: MoteOption = None,
    workers: Workers = 1,
    via: ViaOption = "calls",
    processes: Processes = 1,
    cluster: ClusterAddress = None,
    dry_run: DryRun = False,
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
    """Make traits and keep them in the trait store: of the candidates of cases, or of every item of a dataset.

    Of a dataset, they are also written to a Parquet file (--out, traits.parquet), by a command that can be interrupted
    and repeated. Exit code 1 if an answer is unparsable or calls failed, or if the provider refuses more than half of
    the items.
    """
    import mllm3rec as m3
    from evaluate.protocol.cases import is_cases_file
    from programs.lm.fresh_answers import fresh_answers

    if not is_cases_file(Path(source)):
        if dataset is not None or workers != 1:
            raise InputError("--dataset and --workers are for a cases file; a dataset takes --processes")
        to = out_file or Path("traits.parquet")
        with fresh_rows(fresh, to), ConsoleEvents() as events:
            job = m3.distill_all(
                m3.load_dataset(source, read_columns(columns)),
                to,
                program=ranker or "embedding",
                preset=preset,
                mote=mote,
                processes=processes,
                via=via,
                cluster=cluster,
                dry_run=dry_run,
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
    if out_file or ranker or processes != 1 or cluster or dry_run or columns:
        raise InputError(
            "--out, --ranker, --processes, --cluster, --columns and --dry-run are for a dataset; "
            "a cases file takes --workers"
        )
    with fresh_answers(fresh), ConsoleEvents() as events:
        found = m3.distill(
            m3.load_cases(Path(source), dataset),
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
    raise typer.Exit(_show(found, as_json))


def _show(found: Distillation, as_json: bool) -> int:
    from evaluate.runs.run_metrics import is_readable

    items, traits, refused, unparsable = found.items, found.traits, found.refused, found.unparsable
    if unparsable:
        say(f"{unparsable} of {items} items: no answer of the model could be read")
    if found.refused_items:
        say(f"{found.refused_items} of {items} items: no traits, because the provider refused their text")
    if found.failed:
        say(f"{found.failed} of {items} items: asked in several batches without an answer; the same command asks again")
    if as_json:
        facts = {"items": items, "traits": traits, "refused": refused, "unparsable": unparsable}
        facts |= {"refused_items": found.refused_items, "failed": found.failed}
        emit({**facts, "calls": sum(usage.calls for usage in found.usage.values())})
    else:
        out.print(f"{items} items, {traits} traits, {refused} phrases refused, {unparsable} items unparsable")
        out.print(usage_table(found.usage))
    return 1 if unparsable or found.failed or not is_readable(found.refused_items, items) else 0
