"""OpenTelemetry spans of calls to language models, with the GenAI semantic attributes; off unless they are asked for.

Both drivers report attempts here, through `CallAttempt`. Where spans go, the usual OTEL_* variables say.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from programs.runtime.errors import InputError, one_line, quoted, require_extra

if TYPE_CHECKING:
    from programs.lm.ledger import Call

Tracing = Literal["calls", "texts"]
"""Spans without texts, or with questions and answers."""

_EXPORTERS = "opentelemetry_traces_exporter"
_OTLP = {"http/protobuf": "otlp_proto_http", "grpc": "otlp_proto_grpc"}


def record_span(
    call: Call,
    operation: str,
    tracing: Tracing,
    asked: bytes = b"",
    response: Any = None,
    error: BaseException | None = None,
) -> None:
    """The span of a call that has ended just now.

    Args:
        operation: `chat`, or the name of another route.
        asked: Prompt, messages and settings as a JSON list; in the span only with the tracing `texts`.
        response: In DSPy's form, or as plain data.
        error: Why it failed; its text is left out, because it may quote what was asked.
    """
    from opentelemetry.trace import SpanKind, StatusCode

    ended = round(call.at * 1e9)
    attributes: dict[str, Any] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": call.model.partition("/")[0],
        "gen_ai.request.model": call.model.partition("/")[2] or call.model,
        "mllm3rec.role": call.role,
        "mllm3rec.phase": call.phase,
        "mllm3rec.waited_seconds": call.waited,
    }
    if not call.failed:
        attributes |= {
            "gen_ai.usage.input_tokens": call.tokens_in,
            "gen_ai.usage.output_tokens": call.tokens_out,
            "gen_ai.usage.cache_read.input_tokens": call.tokens_cached,
            "gen_ai.usage.cache_creation.input_tokens": call.tokens_written,
        }
    if call.usd is not None:
        attributes["mllm3rec.usd"] = call.usd
    if tracing == "texts":
        attributes |= _texts(asked, response)
    span = span_tracer().start_span(
        f"{operation} {attributes['gen_ai.request.model']}",
        kind=SpanKind.CLIENT,
        attributes=attributes,
        start_time=ended - round(call.seconds * 1e9),
    )
    if call.failed:
        span.set_attribute("error.type", "_OTHER" if error is None else type(error).__name__)
        span.set_status(StatusCode.ERROR)
    span.end(ended)


def _texts(asked: bytes, response: Any) -> dict[str, str]:
    prompt, messages, *_ = json.loads(asked) if asked else (None, None)
    sent = messages or [{"role": "user", "content": prompt}]
    question = [{"role": one["role"], "parts": [{"type": "text", "content": one["content"]}]} for one in sent]
    parts = [{"type": "text", "content": text} for text in _answers(response)]
    return {
        "gen_ai.input.messages": json.dumps(question, ensure_ascii=False),
        "gen_ai.output.messages": json.dumps([{"role": "assistant", "parts": parts}], ensure_ascii=False),
    }


def _answers(response: Any) -> list[str]:
    if isinstance(response, dict):
        return [str((choice.get("message") or {}).get("content") or "") for choice in response.get("choices") or ()]
    message = getattr(response, "message", None)
    return [] if message is None else [part.text for part in message.parts if hasattr(part, "text")]


@cache
def span_tracer() -> Any:
    """The tracer of the application's own provider; where there is none, of one made from the OTEL_* variables.

    Raises:
        MissingExtraError: without the extra `otel`.
        InputError: if there is no exporter of that name.
    """
    sdk: Any = require_extra("opentelemetry.sdk.trace", "otel", "tracing of calls")
    from opentelemetry import trace

    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = sdk.TracerProvider(
            resource=Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "mllm3rec")})
        )
        for name in os.environ.get("OTEL_TRACES_EXPORTER", "otlp").split(","):
            if name.strip() not in ("", "none"):
                provider.add_span_processor(BatchSpanProcessor(_exporter(name.strip())))
        trace.set_tracer_provider(provider)
    return trace.get_tracer("mllm3rec")


def _exporter(name: str) -> Any:
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        # Standard output is for results: one JSON object, or the messages of MCP.
        return ConsoleSpanExporter(out=sys.stderr)
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    known = _OTLP.get(protocol, name) if name == "otlp" else name
    for entry in entry_points(group=_EXPORTERS, name=known):
        try:
            return entry.load()()
        except ImportError as error:
            raise InputError(f"OTEL_TRACES_EXPORTER: {name}: {one_line(error)}") from error
    raise InputError(
        f"OTEL_TRACES_EXPORTER is {quoted(name)}: no such exporter is installed; use otlp, console or none"
    )
