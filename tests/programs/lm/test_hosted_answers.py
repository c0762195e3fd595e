"""What counts as an answer of a hosted model: the same for every provider, called in threads or in bulk."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from dspy.utils.exceptions import LMError

from programs.lm.backends import Backends, RefusedTextError, UnparsableError
from programs.lm.ledger import Budget, Ledger, read_calls
from programs.lm.response_cache import use_response_cache
from programs.lm.role_lm import ATTEMPTS
from programs.lm.roles import HOSTED, ROLE_NAMES
from tests.support.backends import distill
from tests.support.bulk import in_bulk, mapped
from tests.support.fake_server import Body, FakeOpenAI, Reply
from tests.support.provider_families import CUT_OFF_THINKING, FAMILIES, NO_ANSWERS, WITHHELD, gemini_body

Ask = Callable[[Backends], list[str]]


def in_thread_of_its_own(backends: Backends) -> list[str]:
    traits: list[str] = distill(backends).traits
    return traits


def on_an_event_loop(backends: Backends) -> list[str]:
    with in_bulk(backends) as bulk:
        (traits,) = mapped(bulk, lambda product: distill(bulk, product).traits, ["a cup"])
    found: list[str] = traits
    return found


@pytest.fixture(params=[in_thread_of_its_own, on_an_event_loop])
def ask(request: pytest.FixtureRequest) -> Ask:
    use_response_cache(":memory:")
    found: Ask = request.param
    return found


def backends_of(
    model: str, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, ledger: Ledger | None = None
) -> Backends:
    provider = model.partition("/")[0].upper()
    monkeypatch.setenv(f"{provider}_BASE_URL", server.url)
    monkeypatch.setenv(f"{provider}_API_KEY", "sk-test-0123456789")
    return Backends(HOSTED.with_models(**dict.fromkeys(ROLE_NAMES, model)), ledger)


def each(bodies: Mapping[str, list[Body]]) -> list[Any]:
    return [pytest.param(model, body) for model, of_model in bodies.items() for body in of_model]


def first(times: int, body: Body, model: str) -> FakeOpenAI:
    """A server that sends a body so many times, and then answers as the model's family does."""
    left = [Reply(raw=json.dumps(body).encode())] * times
    return FakeOpenAI(lambda asked: left.pop() if left else FAMILIES[model](asked))


@pytest.mark.parametrize(("model", "body"), each(NO_ANSWERS))
@pytest.mark.usefixtures("hurried")
def test_no_answer_is_a_failure_and_is_never_stored(
    ask: Ask, model: str, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    with first(ATTEMPTS, body, model) as server:
        backends = backends_of(model, server, monkeypatch)
        with pytest.raises(LMError, match="without a message of the model"):
            ask(backends)
        assert len(server.bodies) == ATTEMPTS
        assert ask(backends), "by then the provider is well"
        assert len(server.bodies) == ATTEMPTS + 1


@pytest.mark.parametrize(("model", "body"), each(WITHHELD))
def test_a_text_that_is_withheld_is_refused_once_and_for_itself(
    ask: Ask, model: str, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    with first(1, body, model) as server:
        backends = backends_of(model, server, monkeypatch)
        with pytest.raises(RefusedTextError, match="the provider withheld the answer"):
            ask(backends)
        assert len(server.bodies) == 1
        assert backends.left_out("mote") == ()
        assert ask(backends), "the next user is asked about as before"


@pytest.mark.parametrize(("model", "body"), CUT_OFF_THINKING.items())
def test_an_answer_that_was_cut_off_while_the_model_was_thinking_is_one(
    ask: Ask, model: str, body: Body, monkeypatch: pytest.MonkeyPatch
) -> None:
    with first(2, body, model) as server:
        with pytest.raises(UnparsableError, match="still thinking"):
            ask(backends_of(model, server, monkeypatch))
        assert len(server.bodies) == 2


def test_the_code_of_a_refusal_counts_as_its_words_do(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a parameter that its words name is not left out."""
    said = {"error": {"message": "no response_format for this prompt", "code": "content_filter"}}
    refused = Reply(raw=json.dumps(said).encode(), status=400)
    with FakeOpenAI(lambda body: refused) as server:
        backends = backends_of("openai/gpt-4.1", server, monkeypatch)
        with pytest.raises(RefusedTextError):
            ask(backends)
    assert ["response_format" in body for body in server.bodies] == [True]


def test_more_cached_tokens_than_the_prompt_has_cost_no_answer_and_no_later_session(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = "gemini/gemini-3.8-flash"
    body = gemini_body({"text": '{"traits": ["easy to use"]}'})
    body["usageMetadata"]["cachedContentTokenCount"] = 400
    use_response_cache(tmp_path / "calls.sqlite")
    for session in range(2):
        with first(1, body, model) as server:
            ledger = Ledger(tmp_path / "ledger.jsonl", Budget(usd=20.0))
            assert ask(backends_of(model, server, monkeypatch, ledger)) == ["easy to use"]
            assert len(server.bodies) == 1 - session
        ledger.close()
    sent, hit = read_calls(tmp_path / "ledger.jsonl")
    assert [(call.tokens_in, call.tokens_cached, call.failed) for call in (sent, hit)] == [(10, 10, False)] * 2
    assert (sent.hit, hit.hit) == (False, True)
