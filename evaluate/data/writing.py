"""Writer of the plain format: a dataset as two or three files that any tool can read."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd

from evaluate.data.dataset import Dataset
from programs.runtime.atomic import write_atomically
from programs.runtime.errors import InputError


def write_plain(dataset: Dataset, directory: Path) -> list[Path]:
    """Write `interactions.parquet`, `items.jsonl.gz` and, where there is metadata, `users.jsonl.gz`.

    Raises:
        InputError: if one of these files exists already.
    """
    interactions, items, users = (
        directory / name for name in ("interactions.parquet", "items.jsonl.gz", "users.jsonl.gz")
    )
    for path in (interactions, items, users):
        if path.exists():
            raise InputError(f"{path} exists: choose another directory")
    buffer: bytes = pd.DataFrame(dataset.interactions).to_parquet(index=False)
    write_atomically(interactions, buffer)
    lines = [item.model_dump_json(exclude_defaults=True) for item in dataset.items.values()]
    write_atomically(items, gzip.compress("\n".join(lines).encode() + b"\n", mtime=0))
    if not dataset.metadata:
        return [interactions, items]
    rows = [json.dumps({"user_id": user, **facts}) for user, facts in dataset.metadata.items()]
    write_atomically(users, gzip.compress("\n".join(rows).encode() + b"\n", mtime=0))
    return [interactions, items, users]
