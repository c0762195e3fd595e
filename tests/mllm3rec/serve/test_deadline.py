"""The deadline of a request holds whatever else the service computes, and so does the order of its calls."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mllm3rec.serve.limits import ServiceLimits
from programs.runtime.environment import variable
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible
from tests.support.served import Served, serving


async def timed(served: Served, **body: Any) -> tuple[str | None, float]:
    """Why the program did not answer, and the seconds that the answer took."""
    began = time.monotonic()
    found = await served.ask("/recommend", k=3, **body)
    assert len(found["items"]) == 3
    return found["why"], time.monotonic() - began


def test_an_aligner_that_waits_for_its_encoder_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    slow: list[str] = []

    def respond(body: Body) -> Reply:
        return replace(sensible(body), seconds=3.0 if "input" in body and slow else 0.0)

    async def run(server: FakeOpenAI) -> None:
        monkeypatch.setenv(variable("encoder"), server.model("embedder"))
        async with serving("embedding", server.model(), limits=ServiceLimits(deadline=1.0)) as served:
            slow.append("now")
            first = asyncio.create_task(timed(served, history=["D001", "D014"]))
            while not any("input" in body for body in server.bodies[-1:]):
                await asyncio.sleep(0.01)
            profile = await served.ask("/profile", history=["D003"])
            assert profile["motivations"], "asked while the other request encodes"
            why, seconds = await first
            assert why == "deadline"
            assert seconds < 2

    with FakeOpenAI(respond) as server:
        asyncio.run(run(server))


def test_the_prior_answers_in_time_although_the_engine_computes(server: FakeOpenAI) -> None:
    async def run() -> None:
        async with serving("listwise", server.model(), limits=ServiceLimits(deadline=0.3)) as served:
            served.service._engine.start(time.sleep, 3.0)
            why, seconds = await timed(served, history=["D001"])
            assert why == "deadline"
            assert seconds < 2

    asyncio.run(run())


def test_what_waits_for_its_backend_at_the_deadline_is_not_sent(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    server.respond = lambda body: replace(sensible(body), seconds=0.3)
    limits = tmp_path / "limits.toml"
    limits.write_text(f'["{server.model()}"]\nconcurrency = 1\n')
    monkeypatch.setenv(variable("limits"), str(limits))

    async def run() -> None:
        async with serving("listwise", server.model(), limits=ServiceLimits(deadline=0.5)) as served:
            asked = [timed(served, history=[f"D{n:03}"]) for n in range(1, 9)]
            assert {why for why, _ in await asyncio.gather(*asked)} == {"deadline"}
            sent = len(server.bodies)
            await asyncio.sleep(1.5)
            assert len(server.bodies) == sent

    asyncio.run(run())
