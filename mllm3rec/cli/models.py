"""`mllm3rec models`: weights for this machine, and the presets of models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from mllm3rec.cli.console import emit, out, say
from mllm3rec.cli.options import Json

app = typer.Typer(no_args_is_help=True, help="List, fetch and export models for this machine; list the presets.")


@app.command("list")
def list_models(as_json: Json = False) -> None:
    """List the weights that can be fetched by name, and the presets."""
    from programs.lm.prices import price_table
    from programs.lm.roles import PRESETS, ROLE_NAMES
    from programs.runtime.weights import available, locate

    weights = [
        {"name": w.name, "purpose": w.purpose, "licence": w.licence, "here": locate(w.name) is not None}
        for w in available()
    ]
    presets = {name: {role: roles.of(role).model for role in ROLE_NAMES} for name, roles in PRESETS.items()}
    if as_json:
        emit({"weights": weights, "presets": presets, "prices_dated": price_table().dated})
        return
    table = Table("name", "what", "licence", "here", title="Weights", title_justify="left")
    for entry in weights:
        table.add_row(
            str(entry["name"]), str(entry["purpose"]), str(entry["licence"]), "yes" if entry["here"] else "no"
        )
    out.print(table)
    table = Table("preset", *ROLE_NAMES, title="Presets", title_justify="left")
    for name, by_role in presets.items():
        table.add_row(name, *by_role.values())
    out.print(table)


@app.command("fetch")
def fetch_models(
    names: Annotated[list[str], typer.Argument(help="Names of weights, from `mllm3rec models list`.")],
    as_json: Json = False,
) -> None:
    """Download weights into the cache folder and check their checksums."""
    from programs.runtime.weights import fetch

    paths = {name: {file: str(path) for file, path in fetch(name, progress=say).items()} for name in names}
    if as_json:
        emit(paths)
        return
    for name, files in paths.items():
        for path in files.values():
            out.print(f"{name}: {path}")


@app.command("export")
def export_encoder(
    source: Annotated[Path, typer.Argument(help="Folder of a sentence encoder in Hugging Face form.")],
    target: Annotated[Path, typer.Option("--out", help="Folder to write, for --encoder.")],
    as_json: Json = False,
) -> None:
    """Write a sentence encoder as ONNX, so that it can be used without torch. Needs the extra `export`."""
    from programs.prior.onnx_encoder import EncoderFiles
    from programs.prior.onnx_export import export

    folder = export(source, target)
    identity = EncoderFiles.of_folder(folder).identity
    if as_json:
        emit({"folder": str(folder), "identity": identity})
        return
    out.print(f"{folder}: {identity}")
