"""Decoding policy per family of models, against servers that refuse what each family refuses, in its own dialect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dspy
import pytest

from programs.lm.ambient import AmbientBackends
from programs.lm.backends import Backends
from programs.lm.decoding import decoding_policy
from programs.lm.ledger import Ledger, read_calls
from programs.lm.model_options import ModelOptions
from programs.lm.prices import price_table
from programs.lm.roles import HOSTED, HOSTED_CHEAP, PRESETS, ROLE_NAMES, Roles
from programs.mote import MOTE
from signatures.types import Item
from tests.support.backends import rate
from tests.support.fake_server import Body, FakeOpenAI, Reply
from tests.support.provider_families import FAMILIES

CUP = Item(item_id="cup", title="A cup with a lid")


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
    assert traits.traits.phrases[0].startswith("good for")
    assert len(server.bodies) == 1
    (call,) = read_calls(tmp_path / "ledger.jsonl")
    assert call.tokens_in == 1000


@pytest.mark.parametrize("ending", ["/v1", "/v1/", "", "/"])
def test_anthropics_address_may_have_its_version_or_not(ending: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = "anthropic/claude-haiku-5-5"
    with FakeOpenAI(FAMILIES[model]) as server:
        roles = on(model, server, monkeypatch)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url.removesuffix("/v1") + ending)
        MOTE(Backends(roles))(item=CUP)
    assert [path.replace("//", "/") for path in server.paths] == ["/v1/messages"]


ODD: dict[str, tuple[str, ...]] = {
    "anthropic/claude-haiku-5-5": (
        "[1]",
        '{"content": 3}',
        '{"content": [4]}',
        '{"content": [{"type": "text", "text": 5}]}',
    ),
    "gemini/gemini-3.8-flash": (
        "[1]",
        '{"candidates": 3}',
        '{"candidates": [[]]}',
        '{"candidates": [{"content": {"parts": [7]}}]}',
    ),
    "openai/gpt-6-luna": ("[1]", '{"output": 3}', '{"output": [{"type": "message", "content": 7}]}'),
}


@pytest.mark.parametrize(("model", "raw"), [(model, raw) for model, raws in ODD.items() for raw in raws])
def test_an_answer_in_an_unknown_form_is_asked_again(model: str, raw: str, monkeypatch: pytest.MonkeyPatch) -> None:
    replies = iter([Reply(raw=raw.encode())])
    with FakeOpenAI(lambda body: next(replies, None) or FAMILIES[model](body)) as server:
        assert MOTE(Backends(on(model, server, monkeypatch)))(item=CUP).traits.phrases
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    ("model", "count"),
    [("anthropic/claude-haiku-5-5", "output_tokens"), ("gemini/gemini-3.8-flash", "candidatesTokenCount")],
)
def test_an_impossible_number_of_tokens_is_unknown(
    model: str, count: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def respond(body: Body) -> Reply:
        raw = FAMILIES[model](body).raw
        assert raw is not None
        return Reply(raw=raw.replace(f'"{count}": 20'.encode(), f'"{count}": {10**30}'.encode()))

    with FakeOpenAI(respond) as server:
        MOTE(Backends(on(model, server, monkeypatch), Ledger(tmp_path / "ledger.jsonl")))(item=CUP)
    (call,) = read_calls(tmp_path / "ledger.jsonl")
    assert (call.tokens_in, call.tokens_out, call.usd) == (0, 0, None)


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


@pytest.mark.parametrize("ambient", [False, True])
def test_an_object_of_a_reasoning_model_is_asked_for_what_its_family_takes(
    ambient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Body] = []

    def unreadable_first(body: Body) -> Reply:
        asked.append(body)
        if "logprobs" in body or body["temperature"] != 1.0:
            return Reply("Unsupported parameter", status=400)
        return Reply("hard to say") if len(asked) == 1 else Reply("4")

    with FakeOpenAI(unreadable_first) as server:
        settings: dict[str, Any] = {"api_base": server.url, "api_key": "sk-test-0123456789", "cache": False}
        lm = dspy.LM("openai/gpt-6-luna", temperature=1.0, max_tokens=16_000, **settings)
        options = ModelOptions(preset="hosted", model=lm)
        with dspy.context(lm=lm):
            answer = rate(AmbientBackends() if ambient else Backends(options.roles(), given=options.given))
    assert (answer.rating, answer.unparsable, len(asked)) == ("4", 1, 2)
    mar = options.roles().mar
    assert (mar.logprobs, mar.temperature, mar.max_tokens) == (False, None, 16_000)


def test_an_object_of_another_family_keeps_its_sampling() -> None:
    lm = dspy.LM("openai/gpt-4.1", api_key="-", temperature=0.4, top_p=0.9)
    mar = ModelOptions(preset="hosted", model=lm).roles().mar
    assert (mar.logprobs, mar.temperature, mar.top_p, mar.effort) == (True, 0.4, 0.9, None)


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
