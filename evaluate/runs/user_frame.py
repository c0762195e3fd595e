"""Data frame of a run with one row a user: rank, metrics, cost, profile and ranked items."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from evaluate.runs.journal import read_journal
from evaluate.runs.run_metrics import ranks_and_manifest
from evaluate.stats.metrics import per_user


def user_frame(directory: Path) -> pd.DataFrame:
    """One row for each user of a run, failed ones included, in the order of the journal.

    Returns:
        Columns `user_id`, `status` and `error`; `asked`; `rank` of the target (missing for failed users) and a column a
        metric; `order`, the ranked items; `motivations` as texts; calls, tokens, dollars and seconds.

    Raises:
        InputError: if the directory is not a run, or its targets are missing.
    """
    _, rows = read_journal(directory)
    _, ranks, size = ranks_and_manifest(directory)
    metrics = per_user(ranks).rename(columns=lambda name: f"{name}/{size}")
    table = [
        {
            "user_id": user,
            "status": str(row.status),
            "error": row.error,
            "asked": row.asked,
            "rank": ranks.get(user),
            "order": list(row.order),
            "motivations": [f"{one.dimension}: {one.description}" for one in row.profile.motivations]
            if row.profile is not None
            else [],
            **row.usage.model_dump(include={"calls", "cache_hits", "tokens_in", "tokens_out", "usd", "seconds"}),
        }
        for user, row in rows.items()
    ]
    frame = pd.DataFrame(table).astype({"rank": "Int64", "usd": float})
    return frame.join(metrics, on="user_id")
