"""Files of datasets and what loading them says, and databases that are damaged."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from programs.runtime.errors import InputError

Rows = Sequence[dict[str, Any]]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    """A text file, compressed if its name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = text.encode(encoding)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def overwrite_pages(database: Path) -> None:
    """Damage all pages of a database but the first."""
    content = database.read_bytes()
    database.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))


def jsonl(rows: Rows) -> str:
    """Rows as lines of JSON."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def fails(source: Path, *parts: str) -> None:
    """Loading raises an InputError whose message has all of `parts`."""
    with pytest.raises(InputError) as caught:
        load_dataset(source)
    for part in parts:
        assert part in str(caught.value)


def bought(dataset: Dataset, user: str) -> list[str]:
    """The items of a user, oldest first."""
    return [interaction.item_id for interaction in dataset.sequences[user]]


def plain_files(directory: Path, words: Sequence[str], users: int, longest: int) -> str:
    """A dataset in the plain form: items named by words, histories of very different lengths."""
    directory.mkdir()
    items = [
        {
            "item_id": f"p{n:03}",
            "title": " ".join(words[: 3 + n % 9]) + f" {n}",
            "categories": [[words[n % 3], words[n % 5]]],
        }
        for n in range(120)
    ]
    write(directory / "items.jsonl", jsonl(items))
    rows = [
        {"user_id": f"u{u:03}", "item_id": f"p{(7 * u + 11 * k) % 120:03}", "rating": 5.0, "timestamp": 10 * k + u}
        for u in range(users)
        for k in range(3 + (u * u) % longest)
    ]
    frame = pd.DataFrame(rows).drop_duplicates(["user_id", "item_id"])
    frame.to_csv(directory / "interactions.csv", index=False)
    return str(directory)
