"""`mllm3rec data`: what a dataset holds, and datasets in the plain form."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from evaluate.data.writing import write_plain
from evaluate.protocol.protocol import held_out
from mllm3rec.cli.console import emit, out
from mllm3rec.cli.settings import Json, open_dataset

app = typer.Typer(no_args_is_help=True, help="Look at a dataset, or bring it into the plain form.")
Source = Annotated[str, typer.Argument(help="A dataset directory, or `demo`.")]


@app.command()
def describe(dataset: Source, as_json: Json = False) -> None:
    """Counts, coverage of texts and ratings, lengths of histories, usable targets, and what the loader decided."""
    data = open_dataset(dataset)
    lengths = data.interactions.groupby("user_id").size()
    items = list(data.items.values())
    facts: dict[str, object] = {
        "name": data.name,
        "format": data.format,
        "users": len(lengths),
        "items": len(items),
        "interactions": len(data.interactions),
        "with rating": _share(int(data.interactions["rating"].notna().sum()), len(data.interactions)),
        "items with title": _share(sum(bool(item.title) for item in items), len(items)),
        "items with description": _share(sum(bool(item.description) for item in items), len(items)),
        "items with brand": _share(sum(item.brand is not None for item in items), len(items)),
        "items with price": _share(sum(item.price is not None for item in items), len(items)),
        "users with metadata": _share(len(data.metadata), len(lengths)),
        "interactions per user, median": float(lengths.median()),
        "interactions per user, longest": int(lengths.max()),
        **{
            f"users with a {target} target": sum(held_out(s, target) is not None for s in data.sequences.values())
            for target in ("last-liked", "highest", "last")
        },
        "sha256": data.sha256,
    }
    if as_json:
        emit({**facts, "notes": list(data.notes)})
        return
    table = Table("", "", show_header=False)
    for name, value in facts.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    out.print(table)


@app.command()
def prepare(
    dataset: Source,
    directory: Annotated[Path, typer.Option("--out", help="Directory to write; must not hold a dataset yet.")],
    as_json: Json = False,
) -> None:
    """Write a dataset of any readable format in the plain form, which loads in seconds."""
    data = open_dataset(dataset)
    paths = write_plain(data, directory)
    if as_json:
        emit({"written": [str(path) for path in paths], "sha256": data.sha256})
        return
    for path in paths:
        out.print(str(path), markup=False)


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"
