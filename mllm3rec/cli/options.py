"""Options that several commands share, grouped in their help; importing this file imports no command's work."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MODELS, FUSION, SCHEMA, LIMITS, OUTPUT = "Models", "Fusion", "Motivational schema", "Limits", "Output"
"""Panels of the help."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.", rich_help_panel=OUTPUT)]
CasesFile = Annotated[Path, typer.Argument(help="A cases file, written by `mllm3rec cases`.")]
DatasetName = Annotated[str, typer.Argument(help="A dataset directory, or `demo`.")]
DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="Dataset directory, if it has moved since the cases were drawn.")
]
Preset = Annotated[str, typer.Option(help="Models for all roles: local, hosted or paper.", rich_help_panel=MODELS)]
ModelOption = Annotated[
    str | None, typer.Option(help="Model for every role; docs/models.md has the forms.", rich_help_panel=MODELS)
]
MopeOption = Annotated[str | None, typer.Option("--mope", help="Model for MOPE, the profiles.", rich_help_panel=MODELS)]
MoteOption = Annotated[str | None, typer.Option("--mote", help="Model for MOTE, the traits.", rich_help_panel=MODELS)]
MarOption = Annotated[str | None, typer.Option("--mar", help="Model for MAR, the ranking.", rich_help_panel=MODELS)]
JudgeOption = Annotated[
    str | None,
    typer.Option("--judge", help="Model that re-checks reasons; MAR's unless given.", rich_help_panel=MODELS),
]
Weight = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="Share of MAR in the fused score; the rest is the prior's.", rich_help_panel=FUSION
    ),
]
Head = Annotated[
    int | None, typer.Option(min=1, help="MAR ranks only the prior's first N candidates.", rich_help_panel=FUSION)
]
SchemaFile = Annotated[
    Path | None, typer.Option("--schema", help="Motivational schema, TOML or YAML.", rich_help_panel=SCHEMA)
]
BudgetUsd = Annotated[
    float | None, typer.Option(min=0, help="Stop before more dollars than this are spent.", rich_help_panel=LIMITS)
]
MaxCalls = Annotated[
    int | None, typer.Option(min=0, help="Stop before more calls than this are made.", rich_help_panel=LIMITS)
]
Workers = Annotated[int, typer.Option(min=1, help="Users handled at the same time.", rich_help_panel=LIMITS)]
LedgerFile = Annotated[
    Path | None,
    typer.Option(
        "--ledger", help="Write every call to this file; its calls count for the budget.", rich_help_panel=LIMITS
    ),
]
PricesFile = Annotated[
    Path | None,
    typer.Option("--prices", help="Your own prices, in addition to the shipped ones; or set MLLM3REC_PRICES."),
]
