"""Providers that DSPy reaches through LiteLLM only: deadline, keys in errors, older cached answers."""

from __future__ import annotations

import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import suppress

import pytest
from dspy.utils.exceptions import LMError

import mllm3rec  # noqa: F401 - keeps LiteLLM from downloading its price list
from programs.lm.backends import Backends
from programs.lm.response_cache import ResponseCache, use_response_cache
from programs.lm.role_lm import ATTEMPTS, RoleLM
from programs.lm.roles import ROLE_NAMES, RoleConfig, Roles
from tests.support.backends import distill
from tests.support.fake_server import FakeOpenAI, Reply, sensible

pytest.importorskip("litellm")

MODEL = "cerebras/some-model"
CANARY = "sk-canary-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeOpenAI]:
    with FakeOpenAI() as fake:
        monkeypatch.setenv("CEREBRAS_API_KEY", CANARY)
        monkeypatch.setenv("CEREBRAS_API_BASE", fake.url)
        yield fake


@pytest.fixture
def store() -> Iterator[ResponseCache]:
    cache = use_response_cache(":memory:")
    yield cache
    cache.close()


def backends(timeout: float = 20) -> Backends:
    return Backends(Roles.model_validate(dict.fromkeys(ROLE_NAMES, RoleConfig(model=MODEL, timeout=timeout))))


def test_a_call_is_answered_with_the_key_of_the_environment(server: FakeOpenAI, store: ResponseCache) -> None:
    assert distill(backends()).traits
    assert server.keys == [f"Bearer {CANARY}"]


@pytest.mark.parametrize("status", [400, 401, 403])
def test_a_key_that_the_server_repeats_is_in_no_error(server: FakeOpenAI, store: ResponseCache, status: int) -> None:
    server.respond = lambda body: Reply(f"no, {CANARY} is not welcome", status=status)
    with pytest.raises(Exception, match="is not welcome") as error:
        distill(backends())
    assert CANARY not in "".join(traceback.format_exception(error.value))
    assert "[key]" in str(error.value)


@pytest.mark.usefixtures("hurried")
def test_no_text_is_no_answer(server: FakeOpenAI, store: ResponseCache) -> None:
    left = [Reply("")] * ATTEMPTS
    server.respond = lambda body: left.pop() if left else sensible(body)
    with pytest.raises(LMError, match="without a message of the model"):
        distill(backends())
    assert distill(backends()).traits
    assert len(server.bodies) == ATTEMPTS + 1


def test_a_trickle_of_bytes_ends_at_the_deadline(server: FakeOpenAI, store: ResponseCache) -> None:
    def trickle(connection: socket.socket) -> None:
        with suppress(OSError):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(40):
                connection.sendall(b" ")
                time.sleep(0.5)

    distill(backends())  # LiteLLM takes seconds to import.
    server.respond = lambda body: Reply(wire=trickle)
    began = time.monotonic()
    with pytest.raises(Exception, match=r"no complete answer within 1 s"):
        distill(backends(1), "another cup")
    assert time.monotonic() - began < 10


def test_answers_from_before_there_was_a_client_are_found(
    server: FakeOpenAI, store: ResponseCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.respond = sensible
    before, after = backends(), backends()
    lm = after.lm("mote")
    old = RoleLM(
        MODEL,
        "mote",
        before.ledger,
        None,
        before.rate_limiter(before.roles.mote),
        max_seconds=20,
        keyed=lm.keyed,
        timeout=before.roles.mote.timeout,
        **{name: value for name, value in lm.kwargs.items() if value is not None},
    )
    monkeypatch.setattr(before, "lm", lambda role: old)
    first = distill(before).traits
    assert distill(after).traits == first
    assert len(server.bodies) == 1
