"""Whatever is sent, the service answers or says what is wrong: never with a 500, and never by a fault of its own."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.fake_server import FakeOpenAI
from tests.support.served import Served, serving

EXAMPLES = int(os.environ.get("FUZZED_REQUESTS", "200"))


def _as_text(text: str) -> dict[str, str]:
    return {"text": text}


texts = st.text(max_size=40) | st.sampled_from(["D001", "D002", "\ud800", "\x00", "{history}", "[[ ## x ## ]]"])
numbers = st.integers() | st.floats() | st.integers(0, 6)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=3))
entries = texts | st.fixed_dictionaries(
    {}, optional={"item": texts, "text": texts, "rating": scalars, "timestamp": scalars}
)
bodies = st.fixed_dictionaries(
    {},
    optional={
        "user": scalars,
        "history": st.lists(entries, max_size=6) | values,
        "k": numbers,
        "explain": scalars,
        "item": scalars,
        "text": scalars,
        "metadata": st.dictionaries(texts, texts, max_size=3) | values,
    },
)
likely = st.fixed_dictionaries(
    {"history": st.lists(st.text("abc ", min_size=1).map("mug".__add__).map(_as_text) | st.just("D001"), max_size=4)},
    optional={"k": st.integers(1, 6), "explain": st.booleans(), "item": st.just("D005")},
)
contents = st.one_of(
    bodies.map(lambda body: json.dumps(body).encode()),
    likely.map(lambda body: json.dumps(body).encode()),
    likely.map(lambda body: json.dumps(body | {"user": None}).encode()),
    values.map(lambda body: json.dumps(body).encode()),
    st.binary(max_size=200),
    st.integers(1, 100_000).map(lambda depth: b"[" * depth),
)
paths = st.sampled_from(["/recommend", "/profile", "/traits", "/explain"])


def test_nothing_sent_is_a_fault_of_the_service() -> None:
    codes: dict[int, int] = {}

    async def run(server: FakeOpenAI) -> None:
        async with serving("listwise", server.model()) as served:
            loop = asyncio.get_running_loop()
            await asyncio.to_thread(_fuzz, served, loop, codes)
            assert 'why="error"' not in served.service.metrics.text().decode()

    with FakeOpenAI() as server:
        asyncio.run(run(server))
    assert codes[200] > EXAMPLES // 50, "some requests are sound"
    assert set(codes) <= {200, 400, 413, 422, 503}


def _fuzz(served: Served, loop: asyncio.AbstractEventLoop, codes: dict[int, int]) -> None:
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
    @given(paths, contents)
    def send(path: str, content: bytes) -> None:
        async def post() -> Any:
            return await served.client.post(path, content=content, headers={"Content-Type": "application/json"})

        answer = asyncio.run_coroutine_threadsafe(post(), loop).result()
        codes[answer.status_code] = codes.get(answer.status_code, 0) + 1
        assert answer.status_code < 500 or answer.status_code == 503, answer.text
        if answer.status_code != 200:
            assert answer.json()["error"]

    send()
