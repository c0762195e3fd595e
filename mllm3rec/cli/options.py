"""Options that several commands share; importing this file loads nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODELS, FUSION, SCHEMA, LIMITS, OUTPUT = "Models", "Fusion", "Motivational schema", "Limits", "Output"
"""Groups of options in the help texts."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.", rich_help_panel=OUTPUT)]
CasesFile = Annotated[Path, typer.Argument(help="A cases file, written by `mllm3rec cases`.")]
DatasetName = Annotated[str, typer.Argument(help="A dataset directory, or `demo` for the demo store.")]
DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="Dataset directory, if it has moved since the cases were drawn.")
]
Preset = Annotated[
    str, typer.Option(help="Set of models, one per role: local, hosted or paper.", rich_help_panel=MODELS)
]
ModelOption = Annotated[
    str | None, typer.Option(help="Model string for every role, see docs/models.md.", rich_help_panel=MODELS)
]
MopeOption = Annotated[str | None, typer.Option("--mope", help="Model that makes profiles.", rich_help_panel=MODELS)]
MoteOption = Annotated[str | None, typer.Option("--mote", help="Model that makes traits.", rich_help_panel=MODELS)]
MarOption = Annotated[str | None, typer.Option("--mar", help="Model that ranks candidates.", rich_help_panel=MODELS)]
JudgeOption = Annotated[
    str | None,
    typer.Option("--judge", help="Model that re-checks reasons. Default: MAR's.", rich_help_panel=MODELS),
]
Weight = Annotated[
    float,
    typer.Option(min=0, max=1, help="Fusion weight: MAR's share of the fused score.", rich_help_panel=FUSION),
]
Head = Annotated[
    int | None, typer.Option(min=1, help="MAR ranks only the prior's first N. Default: all.", rich_help_panel=FUSION)
]
SchemaFile = Annotated[
    Path | None, typer.Option("--schema", help="Motivational schema, a TOML or YAML file.", rich_help_panel=SCHEMA)
]
BudgetUsd = Annotated[
    float | None, typer.Option(min=0, help="Most dollars to spend. Default: no limit.", rich_help_panel=LIMITS)
]
MaxCalls = Annotated[
    int | None, typer.Option(min=0, help="Most model calls to make. Default: no limit.", rich_help_panel=LIMITS)
]
Workers = Annotated[int, typer.Option(min=1, help="Users processed in parallel.", rich_help_panel=LIMITS)]
LedgerFile = Annotated[
    Path | None,
    typer.Option(
        "--ledger", help="File to record every call in; calls already in it use up the budget.", rich_help_panel=LIMITS
    ),
]
PricesFile = Annotated[
    Path | None,
    typer.Option("--prices", help="TOML file with your own prices, used before the packaged ones."),
]
