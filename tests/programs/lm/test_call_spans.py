"""Spans: one for each call that is sent, by both drivers, with GenAI attributes, and with texts only if asked for."""

from __future__ import annotations

from collections.abc import Iterator

import dspy
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from programs.lm.backends import Backends
from programs.lm.call_spans import _exporter, span_tracer
from programs.lm.ledger import Ledger
from programs.lm.prices import Price
from programs.runtime.environment import variable
from programs.runtime.errors import InputError
from signatures.mote import DistillTraits
from tests.support.backends import backends_on, distill, prices_for
from tests.support.bulk import in_bulk, mapped
from tests.support.fake_server import FakeOpenAI, Reply, replying

_EXPORTER = InMemorySpanExporter()


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """What was exported."""
    if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(_EXPORTER))
        trace.set_tracer_provider(provider)
    span_tracer.cache_clear()
    _EXPORTER.clear()
    yield _EXPORTER
    span_tracer.cache_clear()


def ask(backends: Backends, bulk: bool) -> None:
    """Ask for the traits of two items, one of them twice."""
    items = ["a cup", "a saw", "a cup"]
    if not bulk:
        for item in items:
            distill(backends, item)
        return
    predictor = dspy.Predict(DistillTraits)
    with in_bulk(backends) as asked:
        mapped(asked, lambda item: asked.ask("mote", predictor, product=item), items)


@pytest.mark.parametrize("bulk", [False, True])
@pytest.mark.parametrize("tracing", ["", "calls", "texts"])
def test_spans_of_calls(
    server: FakeOpenAI, spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, bulk: bool, tracing: str
) -> None:
    monkeypatch.setenv(variable("trace"), tracing)
    ledger = Ledger()
    ask(backends_on(server, ledger, prices_for(server, Price(input=1.0, output=2.0))), bulk)
    found = spans.get_finished_spans()
    if not tracing:
        assert found == ()
        return
    assert len(found) == len(server.bodies) == 2
    facts = [dict(span.attributes or {}) for span in found]
    assert {span.name for span in found} == {"chat fake"}
    assert {one["gen_ai.operation.name"] for one in facts} == {"chat"}
    assert {one["gen_ai.request.model"] for one in facts} == {"fake"}
    assert {one["mllm3rec.role"] for one in facts} == {"mote"}
    assert sum(int(str(one["gen_ai.usage.input_tokens"])) for one in facts) == server.tokens_in
    assert sum(int(str(one["gen_ai.usage.output_tokens"])) for one in facts) == server.tokens_out
    assert sum(float(str(one["mllm3rec.usd"])) for one in facts) == pytest.approx(ledger.total().usd)
    assert all(span.start_time and span.end_time and span.end_time > span.start_time for span in found)
    texts = [str(one.get("gen_ai.input.messages", "")) for one in facts]
    assert any("a saw" in text for text in texts) is (tracing == "texts")
    assert all(("good for" in str(one.get("gen_ai.output.messages", ""))) is (tracing == "texts") for one in facts)
    assert tracing == "texts" or "a saw" not in str(facts)


@pytest.mark.usefixtures("hurried")
def test_a_failed_call_has_its_kind_of_error_and_not_its_text(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable("trace"), "calls")
    with replying(Reply("broken: a cup", status=500)) as server:
        distill(backends_on(server))
    failed, answered = spans.get_finished_spans()
    assert not failed.status.is_ok
    assert (failed.attributes or {})["error.type"] == "LMServerError"
    assert "broken" not in failed.to_json()
    assert answered.status.is_unset


def test_spans_on_the_console_leave_standard_output_to_results(capsys: pytest.CaptureFixture[str]) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(_exporter("console")))
    provider.get_tracer("test").start_span("a call").end()
    said = capsys.readouterr()
    assert said.out == ""
    assert "a call" in said.err


def test_an_unknown_exporter_is_named() -> None:
    with pytest.raises(InputError, match="OTEL_TRACES_EXPORTER is 'nowhere'"):
        _exporter("nowhere")
