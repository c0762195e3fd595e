"""Options that several commands share; importing this file loads nothing heavy."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer


def option_group(name: str) -> Callable[..., Any]:
    """`typer.Option` for the options of one group in the help texts."""
    return partial(typer.Option, rich_help_panel=name)


def read_columns(written: str | None) -> dict[str, str]:
    """The columns given with `--columns`: theirs by ours.

    >>> read_columns("user_id=who, item_id=what"), read_columns(None)
    ({'user_id': 'who', 'item_id': 'what'}, {})

    Raises:
        InputError: if a pair is not OURS=YOURS, or ours is given twice.
    """
    from programs.runtime.errors import InputError

    columns: dict[str, str] = {}
    for pair in (written or "").split(",") if written else ():
        ours, _, yours = (part.strip() for part in pair.partition("="))
        if not ours or not yours or ours in columns:
            raise InputError(f"--columns {written!r:.200}: give each column once, as user_id=who,item_id=what")
        columns[ours] = yours
    return columns


def assignments(option: str, values: Sequence[str] | None, form: str) -> dict[str, str]:
    """The texts given for each name with an option that may be repeated.

    >>> assignments("--data", ["toys=/data/toys", "shop=demo"], "NAME=DIRECTORY")
    {'toys': '/data/toys', 'shop': 'demo'}

    Args:
        form: How a value is written, for the message.

    Raises:
        InputError: if a value has no name or no text.
    """
    from programs.runtime.errors import InputError

    found: dict[str, str] = {}
    for value in values or ():
        name, _, text = value.partition("=")
        if not name or not text:
            raise InputError(f"{option} {value!r}: write {form}")
        found[name] = text
    return found


def given_command(context: typer.Context) -> str:
    """The running command with all that was given to it, as a shell takes it: a report says how to repeat it."""
    words = ["mllm3rec", context.info_name or ""]
    for param in context.command.params:
        source = context.get_parameter_source(param.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        value = context.params[param.name or ""]
        for one in value if isinstance(value, list | tuple) else [value]:
            if param.param_type_name == "option":
                words.append(param.secondary_opts[0] if one is False else param.opts[0])
            if not isinstance(one, bool):
                words.append(str(one))
    return shlex.join(words)


def _use_encoder(context: typer.Context, setting: str | None) -> str | None:
    """Use the encoder until the command ends."""
    if setting is not None:
        from programs.prior.default_encoder import use_encoder

        context.with_resource(use_encoder(setting))
    return setting


def _use_prices(context: typer.Context, path: Path | None) -> Path | None:
    """Use the user's prices until the command ends."""
    if path is not None:
        from programs.lm.prices import use_prices

        context.with_resource(use_prices(path))
    return path


_model, _fusion, _schema, _limit, _output = map(
    option_group, ("Models", "Fusion", "Motivational schema", "Limits", "Output")
)

Json = Annotated[bool, _output("--json", help="Print one JSON object instead of tables.")]
CasesFile = Annotated[Path, typer.Argument(help="A cases file, written by `mllm3rec cases`.")]
DatasetName = Annotated[
    str, typer.Argument(help="A dataset directory, a file of interactions, or `demo` for the demo store.")
]
ColumnNames = Annotated[
    str | None,
    typer.Option(
        "--columns", help="Names of your columns by ours, for those not recognized: user_id=who,item_id=what."
    ),
]
DatasetOption = Annotated[
    str | None, typer.Option("--dataset", help="Dataset directory or file, if it has moved since the cases were drawn.")
]
Preset = Annotated[
    str | None, _model(help="Set of models, one per role: local, hosted, hosted-cheap or paper. Default: local.")
]
ModelOption = Annotated[str | None, _model(help="Model for every role, a model string as in docs/models.md.")]
MopeOption = Annotated[str | None, _model("--mope", help="Model for MOPE, which makes profiles.")]
MoteOption = Annotated[str | None, _model("--mote", help="Model for MOTE, which makes traits.")]
MarOption = Annotated[str | None, _model("--mar", help="Model for MAR, which ranks candidates.")]
JudgeOption = Annotated[str | None, _model("--judge", help="Model that re-checks reasons. Default: MAR's model.")]
EncoderOption = Annotated[
    str | None,
    _model("--encoder", callback=_use_encoder, help="Sentence encoder, as in docs/models.md. Default: minilm."),
]
Weight = Annotated[
    float | None,
    _fusion(
        min=0,
        max=1,
        help="Fusion weight: MAR's share of the fused score, 0 to 1. Default: 0.3, or that of an artifact.",
    ),
]
PriorOption = Annotated[
    str | None,
    _fusion(help="Formula of the prior: 3, 3-sales, or 2, of older runs. Default: that of what is resumed, or 3."),
]
Head = Annotated[
    int | None,
    _fusion(min=1, help="MAR ranks only the prior's first N candidates. Default: all, or those of an artifact."),
]
SchemaFile = Annotated[
    Path | None, _schema("--schema", help="Motivational schema, a TOML or YAML file. Default: consumer.")
]
BudgetUsd = Annotated[float | None, _limit(min=0, help="Most dollars to spend on calls. Default: no limit.")]
MaxCalls = Annotated[int | None, _limit(min=0, help="Most calls to language models. Default: no limit.")]
MaxMinutes = Annotated[
    float | None, _limit(min=0.01, help="Minutes after which no more calls are sent. Default: no limit.")
]
Timeout = Annotated[float | None, _limit(min=0.1, help="Most seconds of one model call. Default: 600.")]
MaxTokens = Annotated[
    int | None,
    _model(min=1, help="Most tokens of one answer. Default: enough for a valid answer."),
]
RetryUnparsable = Annotated[
    bool, typer.Option("--retry-unparsable", help="Ask again where a stored answer is unparsable.")
]
Workers = Annotated[int, _limit(min=1, help="Number of users processed in parallel.")]
ViaOption = Annotated[
    str,
    _limit("--via", help="How models are asked: calls, or batch, which costs half and takes up to a day a wave."),
]
Processes = Annotated[int, _limit(min=1, help="Processes that share limits and budget.")]
ClusterAddress = Annotated[
    str | None,
    _limit(
        "--cluster", metavar="local|ADDRESS", help="Run the processes on a Ray cluster (extra `ray`, docs/scale.md)."
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only forecast calls, dollars and hours, from a few rows.")]
Fresh = Annotated[
    bool,
    _limit(
        "--fresh", help="Ask models again instead of using stored answers. Repeating the command does not pay again."
    ),
]
LogTo = Annotated[
    str | None,
    _output("--log", metavar="mlflow|wandb", help="Track this command there while it runs, and its results."),
]
OutFile = Annotated[Path | None, _output("--out", help="Parquet file to write; its parts are in a folder beside it.")]
Users = Annotated[str, typer.Option("--users", help="all, a number N (the first N), or a file with one id a line.")]
ProgramOption = Annotated[
    str | None,
    typer.Option("--ranker", help="Name of a program, or the folder of an artifact. Default: embedding."),
]
LedgerFile = Annotated[
    Path | None, _limit("--ledger", help="File that records all calls; calls already in it count against the budget.")
]
PricesFile = Annotated[
    Path | None,
    _limit("--prices", callback=_use_prices, help="TOML file with your own prices, used before all others."),
]
