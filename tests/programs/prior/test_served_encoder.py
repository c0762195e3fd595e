"""Sentence encoders behind `/v1/embeddings`: the rules of chat calls hold for them, too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from dspy.utils.exceptions import LMError

from programs.lm.endpoints import key_variable
from programs.lm.ledger import Budget, Ledger, read_calls
from programs.lm.response_cache import use_response_cache
from programs.prior.encoders import normalised
from programs.prior.served_encoder import ROLE, ServedEncoder
from programs.runtime.errors import BudgetExceededError, InputError
from programs.runtime.weights import locate
from tests.support.fake_server import FakeOpenAI, Reply, letters, replying

KEY = "sk-canary-7f3a91"


def unit(*texts: str) -> np.ndarray:
    """What the fake server's vectors are, at length 1."""
    return normalised(np.array([letters(text) for text in texts]))


def test_texts_are_sent_in_batches_and_come_back_in_order(server: FakeOpenAI) -> None:
    encoder = ServedEncoder(server.model("bge"), batch=2)
    done: list[tuple[int, int]] = []
    vectors = encoder.encode(["aab", "", "a" * 9000], lambda n, total: done.append((n, total)))
    np.testing.assert_allclose(vectors, unit("aab", "-", "a" * 6000), rtol=1e-6)
    assert vectors.dtype == np.float32
    assert server.paths == ["/v1/embeddings"] * 2
    assert [body["input"] for body in server.bodies] == [["aab", "-"], ["a" * 6000]]
    assert {body["model"] for body in server.bodies} == {"bge"}
    assert done == [(2, 3), (3, 3)]
    assert encoder.encode([]).shape == (0, 0)


def test_a_key_goes_to_its_server_only(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    ServedEncoder(server.model()).encode(["a"])
    monkeypatch.setenv(key_variable(server.model()), KEY)
    ServedEncoder(server.model("another")).encode(["a"])
    assert server.keys == ["", f"Bearer {KEY}"]


def test_openai_needs_its_key_and_keeps_its_name(server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="OPENAI_API_KEY"):
        ServedEncoder("openai/text-embedding-3-small")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    encoder = ServedEncoder("openai/text-embedding-3-small")
    assert encoder.name == "openai/text-embedding-3-small", "the name that vectors are stored under since the beginning"
    np.testing.assert_allclose(encoder.encode(["ab"]), unit("ab"), rtol=1e-6)
    assert (server.bodies[-1]["model"], server.keys[-1]) == ("text-embedding-3-small", f"Bearer {KEY}")


def test_calls_are_in_the_ledger_with_their_price(
    server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prices = tmp_path / "prices.toml"
    prices.write_text(
        f'dated = 2026-01-31\nsource = "ours"\n[models]\n"{server.model()}" = {{ input = 2.0, output = 0.0 }}\n'
    )
    monkeypatch.setenv("MLLM3REC_PRICES", str(prices))
    ledger = Ledger(tmp_path / "ledger.jsonl", Budget(usd=1.0))
    ServedEncoder(server.model(), ledger, batch=1).encode(["a cup", "a cup", "a saucer"])
    total = ledger.by_role()[ROLE]
    assert (total.calls, total.tokens_in, total.tokens_out) == (3, server.tokens_in, 0)
    assert total.usd == pytest.approx(server.tokens_in * 2 / 1e6)
    assert {call.role for call in read_calls(tmp_path / "ledger.jsonl")} == {ROLE}


def test_a_budget_holds(server: FakeOpenAI) -> None:
    encoder = ServedEncoder(server.model(), Ledger(budget=Budget(calls=2)), batch=1)
    with pytest.raises(BudgetExceededError, match="budget of 2 calls"):
        encoder.encode(["a", "b", "c"])
    assert len(server.bodies) == 2
    with pytest.raises(InputError, match="no known price"):
        ServedEncoder(server.model(), Ledger(budget=Budget(usd=1.0)))


def test_vectors_are_not_kept_twice(server: FakeOpenAI, tmp_path: Path) -> None:
    cache = use_response_cache(tmp_path / "calls.sqlite")
    for _ in range(2):
        ServedEncoder(server.model()).encode(["a"])
    assert len(server.bodies) == 2
    assert cache._store.count() == 0


@pytest.mark.parametrize("statuses", [[429], [500], [503, 429]])
def test_a_passing_failure_is_tried_again(statuses: list[int]) -> None:
    with replying(*(Reply(status=status, headers={"Retry-After": "0"}) for status in statuses)) as server:
        ledger = Ledger()
        np.testing.assert_allclose(ServedEncoder(server.model(), ledger).encode(["ab"]), unit("ab"), rtol=1e-6)
        assert len(server.bodies) == len(statuses) + 1 == ledger.total().calls


def test_a_refused_key_ends_it_at_once_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    with replying(Reply(f"invalid key {KEY}", status=401)) as server:
        monkeypatch.setenv(key_variable(server.model()), KEY)
        with pytest.raises(InputError, match=r"encoder: http://127.*invalid key \[key\]"):
            ServedEncoder(server.model()).encode(["a"])
        assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"data": []},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]},
        {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [float("nan")]}]},
        {"data": [{"index": 0, "embedding": None}, {"index": 1, "embedding": [1.0]}]},
        {"error": {"message": "out of memory"}},
        [],
    ],
)
@pytest.mark.usefixtures("hurried")
def test_an_answer_without_a_vector_for_each_text_is_none(answer: object) -> None:
    reply = Reply(raw=json.dumps(answer).encode())
    with FakeOpenAI(lambda body: reply) as server, pytest.raises(LMError, match="the server"):
        ServedEncoder(server.model()).encode(["a", "b"])


def test_no_redirect_is_followed(server: FakeOpenAI) -> None:
    moved = Reply(status=307, headers={"Location": f"{server.url}/embeddings"})
    with FakeOpenAI(lambda body: moved) as other, pytest.raises((LMError, InputError), match=r"307.*redirects to"):
        ServedEncoder(other.model()).encode(["a"])
    assert server.bodies == []


def test_a_model_without_embeddings_is_refused() -> None:
    with pytest.raises(InputError, match="write a hosted model as PROVIDER/MODEL"):
        ServedEncoder("bge-small")
    with pytest.raises(InputError, match=r"no server for /embeddings"):
        ServedEncoder("mistral/embed").encode(["a"])


@pytest.mark.llm
def test_a_gguf_file_gives_vectors_in_this_process() -> None:
    if locate("smollm2-135m") is None:
        pytest.skip("the weights are not in the cache")
    ledger = Ledger()
    encoder = ServedEncoder("local/smollm2-135m", ledger)
    texts = ["wooden train set", "railway of wood", "", "long " * 500]
    vectors = encoder.encode(texts)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    # Other texts of the same call change how quantized weights are multiplied, and so the last digits.
    assert encoder.encode(texts[:1])[0] @ vectors[0] > 0.999
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[3]
    assert ledger.total().usd is None
