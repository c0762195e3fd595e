"""`mllm3rec data`: describe a dataset, or write it in the plain format."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from mllm3rec.cli.console import emit, out, say
from mllm3rec.cli.options import ColumnNames, DatasetName, Json, read_columns

if TYPE_CHECKING:
    from evaluate.data.dataset import Dataset

app = typer.Typer(no_args_is_help=True, help="Describe a dataset, or write it in the plain format.")


@app.command()
def describe(dataset: DatasetName, columns: ColumnNames = None, as_json: Json = False) -> None:
    """Show counts, shares of items with texts and ratings, history lengths, notes of the loader, and warnings."""
    from evaluate.data.data_warnings import find_data_warnings
    from evaluate.protocol.protocol import usable_targets

    data = _opened(dataset, columns)
    facts = data.describe()
    sha256 = facts.pop("sha256")
    facts |= {f"users with a {target} target": count for target, count in usable_targets(data.sequences).items()}
    facts["sha256"] = sha256
    warnings = find_data_warnings(data)
    for warning in warnings:
        say(f"warning: {warning}")
    if as_json:
        emit({**facts, "notes": list(data.notes), "warnings": [asdict(warning) for warning in warnings]})
        return
    table = Table("", "", show_header=False)
    for name, value in facts.items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    out.print(table)


@app.command()
def prepare(
    dataset: DatasetName,
    directory: Annotated[Path, typer.Option("--out", help="Directory to write, without a dataset in it.")],
    columns: ColumnNames = None,
    as_json: Json = False,
) -> None:
    """Write a dataset in the plain format, which loads in seconds."""
    from evaluate.data.writing import write_plain

    data = _opened(dataset, columns)
    paths = write_plain(data, directory)
    if as_json:
        emit({"written": [str(path) for path in paths], "sha256": data.sha256})
        return
    for path in paths:
        out.print(str(path))


def _opened(dataset: str, columns: str | None) -> Dataset:
    import mllm3rec as m3

    data = m3.load_dataset(dataset, read_columns(columns))
    for note in data.notes:
        say(f"note: {note}")
    return data
