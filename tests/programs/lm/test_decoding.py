"""Decoding policy per family of models, against servers that refuse what each family refuses, in its own dialect."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from programs.lm.backends import Backends
from programs.lm.decoding import decoding_policy
from programs.lm.ledger import Ledger, read_calls
from programs.lm.prices import price_table
from programs.lm.roles import HOSTED, HOSTED_CHEAP, PRESETS, ROLE_NAMES, Roles
from programs.mote import MOTE
from signatures.types import Item
from tests.support.fake_server import Body, FakeOpenAI, Reply

TRAITS = json.dumps({"traits": ["keeps tea warm", "for slow mornings"]})
CUP = Item(item_id="cup", title="A cup with a lid")


def refusal(body: Body, *names: str) -> Reply | None:
    """400 for the first of these parameters that a request holds."""
    found = next((name for name in names if name in body), None)
    return None if found is None else Reply(f"Unsupported parameter: {found!r} is not supported.", status=400)


def openai_chat(usage: Body) -> Reply:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TRAITS}}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return Reply(raw=json.dumps(body).encode())


def gpt_6(body: Body) -> Reply:
    if no := refusal(body, "temperature", "top_p", "logprobs", "top_logprobs", "max_tokens"):
        return no
    if body.get("reasoning_effort") not in ("none", "low", "medium", "high"):
        return Reply("Unsupported value: 'reasoning_effort'", status=400)
    details = {"cached_tokens": 300, "cache_write_tokens": 600}
    return openai_chat({"prompt_tokens": 1000, "completion_tokens": 20, "prompt_tokens_details": details})


def gpt_4(body: Body) -> Reply:
    return refusal(body, "reasoning_effort") or openai_chat({"prompt_tokens": 1000, "completion_tokens": 20})


def claude(thinking: str) -> Callable[[Body], Reply]:
    def respond(body: Body) -> Reply:
        if no := refusal(body, "temperature", "top_p", "top_k", "logprobs"):
            return no
        if body.get("thinking", {}).get("type") != thinking:
            return Reply(f"thinking.type: expected {thinking}", status=400)
        usage = {
            "input_tokens": 100,
            "cache_read_input_tokens": 300,
            "cache_creation_input_tokens": 600,
            "output_tokens": 20,
        }
        content = [{"type": "text", "text": TRAITS}]
        message = {"id": "x", "type": "message", "role": "assistant", "model": "m", "content": content, "usage": usage}
        return Reply(raw=json.dumps(message | {"stop_reason": "end_turn"}).encode())

    return respond


def gemini(body: Body) -> Reply:
    settings = body.get("generationConfig", {})
    if no := refusal(settings, "temperature", "topP", "responseLogprobs", "logprobs"):
        return no
    if settings.get("maxOutputTokens", 0) < 4000:
        return Reply("the thoughts need room", status=400)
    content = {"role": "model", "parts": [{"text": TRAITS}]}
    usage = {"promptTokenCount": 1000, "candidatesTokenCount": 20, "thoughtsTokenCount": 80, "totalTokenCount": 1100}
    answer = {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": usage}
    return Reply(raw=json.dumps(answer).encode())


def open_weights(body: Body) -> Reply:
    if body.get("reasoning_effort") != "low":
        return Reply("reasoning_effort: low, medium or high", status=400)
    return refusal(body, "logprobs") or openai_chat({"prompt_tokens": 1000, "completion_tokens": 20})


FAMILIES = {
    "openai/gpt-6-luna": gpt_6,
    "openai/gpt-6.1-terra": gpt_6,
    "openai/gpt-4.1": gpt_4,
    "anthropic/claude-haiku-5-5": claude("disabled"),
    "anthropic/claude-sonnet-5-5": claude("adaptive"),
    "gemini/gemini-3.8-flash": gemini,
    "groq/openai/gpt-oss-120b": open_weights,
}


def on(model: str, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> Roles:
    provider = model.partition("/")[0].upper()
    monkeypatch.setenv(f"{provider}_BASE_URL", server.url)
    monkeypatch.setenv(f"{provider}_API_KEY", "sk-test-0123456789")
    return HOSTED.with_models(**dict.fromkeys(ROLE_NAMES, model))


@pytest.mark.parametrize("model", FAMILIES)
def test_each_family_takes_the_first_request(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    with FakeOpenAI(FAMILIES[model]) as server:
        backends = Backends(on(model, server, monkeypatch), ledger)
        traits = MOTE(backends)(item=CUP)
        assert backends.left_out("mote") == ()
    assert traits.traits.phrases == ("keeps tea warm", "for slow mornings")
    assert len(server.bodies) == 1
    (call,) = read_calls(tmp_path / "ledger.jsonl")
    assert call.tokens_in == 1000


def test_cached_tokens_and_thoughts_are_billed_as_each_provider_bills_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected: dict[str, dict[str, Any]] = {
        "openai/gpt-6-luna": {"tokens_out": 20, "tokens_cached": 300, "tokens_written": 600},
        "anthropic/claude-haiku-5-5": {"tokens_out": 20, "tokens_cached": 300, "tokens_written": 600},
        "gemini/gemini-3.8-flash": {"tokens_out": 100, "tokens_cached": 0, "tokens_written": 0},
    }
    for model, tokens in expected.items():
        path = tmp_path / model.replace("/", "-")
        with FakeOpenAI(FAMILIES[model]) as server:
            MOTE(Backends(on(model, server, monkeypatch), Ledger(path)))(item=CUP)
        (call,) = read_calls(path)
        assert call.model_dump(include=set(tokens)) == tokens
        price = price_table().of(model)
        assert price is not None
        assert price.cache_write is None or price.cache_write > price.input
        plain = 1000 - call.tokens_cached - call.tokens_written
        write, read = price.cache_write or price.input, price.cached or price.input
        usd = plain * price.input + call.tokens_cached * read + call.tokens_written * write
        assert call.usd == pytest.approx((usd + call.tokens_out * price.output) / 1e6)


def test_the_static_part_of_a_prompt_is_marked_for_anthropics_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    model = "anthropic/claude-haiku-5-5"
    with FakeOpenAI(FAMILIES[model]) as server:
        mote = MOTE(Backends(on(model, server, monkeypatch)))
        mote(item=CUP)
        mote(item=Item(item_id="pot", title="A pot"))
    for body in server.bodies:
        marked = [number for number, message in enumerate(body["messages"]) if "cache_control" in json.dumps(message)]
        assert marked == [len(body["messages"]) - 2]
    first, second = (body["messages"][:-1] for body in server.bodies)
    assert first == second
    assert server.bodies[0]["messages"][-1] != server.bodies[1]["messages"][-1]


def test_a_model_of_another_family_gets_the_usual_settings_back() -> None:
    roles = HOSTED.with_models(mar="openai/gpt-4.1")
    usual = roles.mar
    assert (usual.temperature, usual.logprobs, usual.effort, usual.max_tokens) == (0.0, True, None, 1024)
    there = roles.with_models(mar="gemini/gemini-3.8-flash").mar
    assert (there.temperature, there.logprobs, there.effort, there.max_tokens) == (None, False, "low", 16_000)
    back = roles.with_models(mar="gemini/gemini-3.8-flash").with_models(mar="local/smollm2-135m").mar
    assert (back.temperature, back.logprobs, back.effort, back.adapter) == (0.0, True, None, "compact")


def test_models_of_the_first_version_keep_their_policy() -> None:
    for model in ("openai/o3", "openai/gpt-5", "openai/gpt-5-mini", "openai/gpt-5.4"):
        assert decoding_policy(model) == {"temperature": None, "top_p": None, "max_tokens": 16000, "logprobs": False}


def test_the_presets_use_models_that_have_a_price_and_answer_without_thinking() -> None:
    for roles in (HOSTED, HOSTED_CHEAP):
        for role in ROLE_NAMES:
            config = roles.of(role)
            assert price_table().of(config.model) is not None
            assert config.effort == "none"
    assert set(PRESETS) == {"local", "hosted", "hosted-cheap", "paper"}
