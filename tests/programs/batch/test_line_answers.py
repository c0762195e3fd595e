"""One line of a file of answers is judged as an answer to a call of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from dspy.lm15 import Config, Message, Request, TextPart

from programs.batch.line_answers import Judged, judge
from programs.batch.provider import AnswerLine
from programs.batch.question import BatchQuestion, without_messages
from programs.lm.prices import Price, Tariff
from programs.lm.roles import RoleConfig
from tests.support.fake_server import Body
from tests.support.provider_families import CUT_OFF_THINKING, NO_ANSWERS, WITHHELD, claude_body, gemini_body

PRICE = Price(input=9.0, output=9.0, batch=Tariff(input=1.0, output=1.0, cached=0.5)).in_batches()
MOST_USD = 0.5


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for provider in ("ANTHROPIC", "GEMINI", "OPENAI"):
        monkeypatch.setenv(f"{provider}_API_KEY", "sk-test-0123456789")


def judged(model: str, body: object) -> Judged:
    request = Request(model=model, messages=(Message("user", (TextPart("x"),)),), config=Config(max_tokens=10))
    question = BatchQuestion(
        key="0" * 64,
        role="mote",
        config=RoleConfig(model=model),
        model=model,
        about="a",
        url="http://host/v1",
        body="{}",
        form="f",
        request=without_messages(request),
        tokens_in=10,
        tokens_out=10,
        most_usd=MOST_USD,
    )
    return judge(question, AnswerLine(question.key, 200, json.dumps(body).encode()), "job/0", PRICE)


def each(bodies: Mapping[str, list[Body]]) -> list[Any]:
    return [pytest.param(model, body) for model, of_model in bodies.items() for body in of_model]


@pytest.mark.parametrize(("model", "body"), each(NO_ANSWERS))
def test_no_answer_is_asked_again_and_counts_at_its_upper_estimate(model: str, body: Body) -> None:
    found = judged(model, body)
    assert (found.again, found.kept, found.end.refusal) == (True, None, None)
    assert found.end.call is not None
    assert (found.end.call.failed, found.end.call.at_most_usd) == (True, MOST_USD)


@pytest.mark.parametrize(("model", "body"), each(WITHHELD))
def test_a_text_that_is_withheld_is_refused_for_good(model: str, body: Body) -> None:
    found = judged(model, body)
    assert (found.again, found.kept) == (False, None)
    assert found.end.refusal is not None


@pytest.mark.parametrize(("model", "body"), CUT_OFF_THINKING.items())
def test_an_answer_that_was_cut_off_while_the_model_was_thinking_is_shown_to_the_program(
    model: str, body: Body
) -> None:
    found = judged(model, body)
    assert (found.again, found.kept) == (False, None)
    assert found.end.refusal is not None
    assert found.end.call is not None
    assert not found.end.call.failed


HALVES: list[tuple[str, Body]] = [
    ("gemini/gemini-3.8-flash", {"usageMetadata": {"candidatesTokenCount": 2}}),
    ("gemini/gemini-3.8-flash", {"usageMetadata": {"promptTokenCount": 10, "candidatesTokenCount": 10**30}}),
    ("anthropic/claude-haiku-5-5", {"usage": {"output_tokens": 2, "cache_read_input_tokens": 7}}),
    ("anthropic/claude-haiku-5-5", {"usage": {"input_tokens": 10}}),
]


@pytest.mark.parametrize(("model", "usage"), HALVES)
def test_half_a_report_of_usage_does_not_make_the_other_half_free(model: str, usage: Body) -> None:
    body = gemini_body({"text": "hi"}) if model.startswith("gemini") else claude_body({"type": "text", "text": "hi"})
    call = judged(model, body | usage).end.call
    assert call is not None
    assert (call.usd, call.most_usd) == (None, MOST_USD)


def test_more_cached_tokens_than_the_prompt_has_are_as_many_as_it_has() -> None:
    body = gemini_body({"text": "hi"})
    body["usageMetadata"]["cachedContentTokenCount"] = 400
    call = judged("gemini/gemini-3.8-flash", body).end.call
    assert call is not None
    assert (call.tokens_in, call.tokens_cached) == (10, 10)
    assert call.usd == pytest.approx((10 * 0.5 + 2 * 1.0) / 1e6)
