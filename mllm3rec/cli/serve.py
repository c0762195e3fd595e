"""`mllm3rec serve`: a compiled program behind HTTP, or as tools of the Model Context Protocol."""

from __future__ import annotations

from typing import Annotated

import typer

from mllm3rec.cli.console import ConsoleEvents, emit
from mllm3rec.cli.options import (
    ColumnNames,
    DatasetName,
    EncoderOption,
    Json,
    JudgeOption,
    LedgerFile,
    MarOption,
    MaxTokens,
    ModelOption,
    MopeOption,
    MoteOption,
    Preset,
    PricesFile,
    SchemaFile,
    Timeout,
    Weight,
    option_group,
    read_columns,
)
from programs.runtime.events import Note

_service, _limit = map(option_group, ("Service", "Limits"))


def serve(
    program: Annotated[
        str, typer.Argument(help="Folder of an artifact, name of a program, or `prior` for no models at all.")
    ],
    dataset: DatasetName,
    mcp: Annotated[
        bool, _service("--mcp", help="Speak MCP on standard input and output; with HTTP it is at /mcp, too.")
    ] = False,
    host: Annotated[str, _service(help="Address to listen at; others than this machine need a key.")] = "127.0.0.1",
    port: Annotated[int, _service(min=0, max=65535, help="Port to listen at; 0 for a free one.")] = 8000,
    allow_host: Annotated[
        list[str] | None, _service(help="Further name by which callers reach it, or * for any; repeat it.")
    ] = None,
    candidates: Annotated[int, typer.Option(min=1, max=90, help="Number of candidates that MAR ranks.")] = 15,
    usd_per_minute: Annotated[float | None, _limit(min=0, help="Most dollars in any minute.")] = None,
    usd_per_day: Annotated[float | None, _limit(min=0, help="Most dollars in any 24 hours.")] = None,
    requests_per_minute: Annotated[int | None, _limit(min=1, help="Most requests in any minute.")] = None,
    requests_per_day: Annotated[int | None, _limit(min=1, help="Most requests in any 24 hours.")] = None,
    deadline: Annotated[float, _limit(min=0.1, help="Seconds after which the prior answers.")] = 30.0,
    at_a_time: Annotated[int, _limit(min=1, help="Users about whom models are asked at a time.")] = 64,
    body_bytes: Annotated[int, _limit(min=1024, help="Largest request.")] = 262_144,
    receive_seconds: Annotated[
        float, _limit(min=0.1, help="Seconds in which the head of a request must have come, and again its body.")
    ] = 10.0,
    preset: Preset = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    mope: MopeOption = None,
    mote: MoteOption = None,
    mar: MarOption = None,
    judge: JudgeOption = None,
    weight: Weight = None,
    schema: SchemaFile = None,
    calls: LedgerFile = None,
    prices: PricesFile = None,
    timeout: Timeout = None,
    max_tokens: MaxTokens = None,
    columns: ColumnNames = None,
    as_json: Json = False,
) -> None:
    """Serve a program: POST /recommend, /profile, /traits, /explain; GET /healthz, /metrics, and a page at /.

    The prior answers if the models are too slow, too expensive or down, and the answer says so. A new
    artifact in the folder is taken without a restart. The key is read from MLLM3REC_BEARER. --json prints one object,
    with the address and what answers there, as soon as requests can come.
    """
    import mllm3rec as m3
    from programs.runtime.errors import InputError, input_error, require_extra

    for module in ("fastapi", "uvicorn", "mcp", "prometheus_client"):
        require_extra(module, "serve", "mllm3rec serve")
    from pydantic import ValidationError

    from mllm3rec.serve.limits import ServiceLimits
    from mllm3rec.serve.running import ServiceSettings, log_to_stderr, serve_http, serve_mcp
    from programs.lm.model_options import ModelOptions
    from programs.runtime.config_file import load_schema

    if mcp and as_json:
        raise InputError("--mcp speaks on standard output, so there is no place for --json: leave one of them out")
    try:
        limits = ServiceLimits(
            usd_per_minute=usd_per_minute,
            usd_per_day=usd_per_day,
            requests_per_minute=requests_per_minute,
            requests_per_day=requests_per_day,
            deadline=deadline,
            at_a_time=at_a_time,
            body_bytes=body_bytes,
            receive_seconds=receive_seconds,
        )
    except ValidationError as error:
        raise input_error("limits", error) from None
    settings = ServiceSettings(
        program,
        ModelOptions(preset, model, mope, mote, mar, judge, timeout, max_tokens),
        None if schema is None else load_schema(schema),
        weight,
        candidates,
        limits,
        calls,
        host,
        port,
        tuple(allow_host or ()),
    )
    log_to_stderr()
    with ConsoleEvents() as events:
        events(Note(f"loading {dataset}"))
        data = m3.load_dataset(dataset, read_columns(columns))
        if mcp:
            serve_mcp(settings, data, events)
        elif as_json:
            serve_http(
                settings, data, events, lambda at, health: emit({"address": at} | health.model_dump(mode="json"))
            )
        else:
            serve_http(settings, data, events)
