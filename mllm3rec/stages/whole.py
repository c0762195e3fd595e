"""Whole catalogues: traits of every item, profiles of every user, recommendations for every user, as Parquet files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Unpack

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from evaluate.protocol.protocol import IN_MEMORY
from mllm3rec.api.options import budget_of
from mllm3rec.stages import columns
from mllm3rec.stages.job import Job, RowSource, run_job
from mllm3rec.stages.settings import StageOptions, StageSettings
from programs.batch.via import Via
from programs.mope import HISTORY_ITEMS
from programs.prior.choice import NEWEST, recorded
from programs.prior.default_encoder import encoder_setting
from programs.runtime.errors import InputError, quoted
from programs.runtime.events import OnEvent, ignore


def distill_all(
    dataset: Dataset | str | Path,
    out: str | Path = "traits.parquet",
    *,
    processes: int = 1,
    cluster: str | None = None,
    dry_run: bool = False,
    via: Via = "calls",
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    on_event: OnEvent = ignore,
    **options: Unpack[StageOptions],
) -> Job:
    """Make the traits of every item of a dataset. Items whose traits are in the trait store need no call.

    A run that was interrupted, also by `kill -9`, goes on when it is called again. Columns: `mllm3rec.stages.columns`.

    Args:
        dataset: A dataset, its directory, or `demo`.
        out: The Parquet file to write; a folder beside it holds its parts meanwhile.
        processes: Number of processes that share limits and budget.
        cluster: Address of a Ray cluster for the processes, or `local`; needs the extra `ray` (docs/scale.md).
        dry_run: Whether to make a sample of the rows only, and forecast the others.
        via: See `evaluate`.
        budget_usd, max_calls, max_minutes: Limits; calls in the ledger count.
        options: Program and models, see `StageSettings`.

    Raises:
        BudgetExceededError: if the budget is spent; what was made is kept.
        InputError: if a model cannot be used, or `out` was made with other settings.
    """
    data = _loaded(dataset)
    source = RowSource(list(data.items), lambda key: columns.item_row(data.items[key]), columns.ITEMS, "items")
    budget = budget_of(budget_usd, max_calls, max_minutes)
    return run_job(
        StageSettings(task="distill", **options),
        source,
        Path(out),
        budget,
        processes=processes,
        cluster=cluster,
        dry_run=dry_run,
        via=via,
        on_event=on_event,
    )


def profile_all(
    dataset: Dataset | str | Path,
    out: str | Path = "profiles.parquet",
    *,
    users: Iterable[str] | None = None,
    processes: int = 1,
    cluster: str | None = None,
    dry_run: bool = False,
    via: Via = "calls",
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    on_event: OnEvent = ignore,
    **options: Unpack[StageOptions],
) -> Job:
    """Make the motivation profile of every user of a dataset, from all their interactions.

    Args:
        users: Ids of the users; None for all.
        dataset, out, processes, cluster, dry_run, via, budget_usd, max_calls, max_minutes, options: As in
            `distill_all`.

    Raises:
        BudgetExceededError: if the budget is spent; what was made is kept.
        InputError: if there is no such user, a model cannot be used, or `out` was made with other settings.
    """
    data = _loaded(dataset)

    def row(user: str) -> dict[str, Any]:
        return columns.user_row(user, data.purchases(user)[-HISTORY_ITEMS:], data.metadata.get(user, {}))

    source = RowSource(_users(data, users), row, columns.USERS, "users")
    budget = budget_of(budget_usd, max_calls, max_minutes)
    return run_job(
        StageSettings(task="profile", **options),
        source,
        Path(out),
        budget,
        processes=processes,
        cluster=cluster,
        dry_run=dry_run,
        via=via,
        on_event=on_event,
    )


def recommend_all(
    dataset: Dataset | str | Path,
    out: str | Path = "recommendations.parquet",
    *,
    users: Iterable[str] | None = None,
    k: int = 5,
    candidates: int = 15,
    explain: bool = False,
    processes: int = 1,
    cluster: str | None = None,
    dry_run: bool = False,
    via: Via = "calls",
    budget_usd: float | None = None,
    max_calls: int | None = None,
    max_minutes: float | None = None,
    on_event: OnEvent = ignore,
    **options: Unpack[StageOptions],
) -> Job:
    """Recommend the k best items of the whole catalogue to every user of a dataset.

    Args:
        dataset: As in `distill_all`, but read from files or `demo`: every process loads it.
        users: Ids of the users; None for all.
        k, candidates: Items to recommend, and those that the prior retrieves for each user.
        explain: Whether each recommended item gets a checked reason.
        out, processes, cluster, dry_run, via, budget_usd, max_calls, max_minutes, options: As in `distill_all`.

    Raises:
        BudgetExceededError: if the budget is spent; what was made is kept.
        InputError: if there is no such user, a model cannot be used, or `out` was made with other settings.
    """
    data = _loaded(dataset)
    if data.source == IN_MEMORY:
        raise InputError(f"dataset {data.name!r} is in memory: write it to a folder, which every process can load")
    chosen = _users(data, users)
    settings = StageSettings(
        task="recommend",
        dataset=data.source,
        dataset_sha256=data.sha256,
        columns=dict(data.columns),
        k=k,
        candidates=candidates,
        explain=explain,
        **options,
    )
    read = {"dataset": data.sha256, "columns": settings.columns, "prior": recorded(settings.choice().prior or NEWEST)}
    read |= encoder_setting()
    source = RowSource(chosen, lambda user: {"user_id": user}, columns.USER_IDS, "users", read)
    budget = budget_of(budget_usd, max_calls, max_minutes)
    return run_job(
        settings,
        source,
        Path(out),
        budget,
        processes=processes,
        cluster=cluster,
        dry_run=dry_run,
        via=via,
        on_event=on_event,
    )


def _loaded(dataset: Dataset | str | Path) -> Dataset:
    return dataset if isinstance(dataset, Dataset) else load_dataset(dataset)


def _users(data: Dataset, users: Iterable[str] | None) -> list[str]:
    if users is None:
        return list(data.sequences)
    chosen = list(dict.fromkeys(users))
    unknown = [user for user in chosen if user not in data.sequences]
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(chosen)} users are not in dataset {data.name!r}, such as {quoted(unknown[0])}; "
            "correct the list of users"
        )
    return chosen
