"""Free texts of histories, whose vectors may come from a server: in time and within the budget, or not at all."""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

import mllm3rec as m3
from evaluate.data.load import load_dataset
from mllm3rec.serve import outside_items
from mllm3rec.serve.limits import ServiceLimits
from mllm3rec.serve.outside_items import OutsideItems
from mllm3rec.serve.program_pool import artifact_fingerprint
from programs.lm.prices import use_prices
from programs.prior.encoders import HashingEncoder
from programs.runtime.environment import variable
from signatures.types import Item
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible
from tests.support.served import serving

TEXT = "a wool blanket"


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("seconds", "status", "why"), [(0.0, 401, "backend"), (0.0, 500, "backend"), (1.0, 200, "deadline")]
)
def test_where_they_cannot_be_embedded_the_prior_answers_without_them(
    monkeypatch: pytest.MonkeyPatch, seconds: float, status: int, why: str
) -> None:
    def respond(body: Body) -> Reply:
        reply = sensible(body)
        return replace(reply, seconds=seconds, status=status) if TEXT in str(body.get("input")) else reply

    async def run(server: FakeOpenAI) -> None:
        limits = ServiceLimits(deadline=30 if why == "backend" else 0.3)
        for program in ("prior", "listwise"):
            async with serving(program, server.model(), limits=limits) as served:
                history = ["D001", {"text": f"{TEXT} for {program}"}]
                began = time.monotonic()
                found = await served.ask("/recommend", history=history)
                assert (found["answered_by"], found["why"], found["unknown_items"]) == ("prior", why, [])
                assert len(found["items"]) == 5
                assert "D001" not in {item["item_id"] for item in found["items"]}
                assert time.monotonic() - began < 1 or why == "backend"
                refused: httpx.Response = await served.client.post("/profile", json={"history": history})
                assert refused.status_code == 503
                await asyncio.sleep(seconds)
        assert not [body for body in server.bodies if "messages" in body], "the program is not asked"

    with FakeOpenAI(respond) as server:
        monkeypatch.setenv(variable("encoder"), server.model("embedder"))
        asyncio.run(run(server))


def test_their_vectors_are_paid_by_the_request(
    server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(variable("encoder"), server.model("embedder"))
    prices = tmp_path / "prices.toml"
    price = f'"{server.model("embedder")}" = {{ input = 10.0, output = 0 }}'
    prices.write_text(f'dated = 2026-01-31\nsource = "ours"\n[models]\n{price}\n')

    async def run(usd: float) -> tuple[str, int]:
        async with serving("prior", limits=ServiceLimits(usd_per_minute=usd)) as served:
            found = await served.ask("/recommend", history=[{"text": f"{TEXT} for {usd} dollars"}])
            return found["why"], found["calls"]

    with use_prices(prices):
        assert asyncio.run(run(10.0)) == ("prior", 1)
        assert asyncio.run(run(1e-9)) == ("budget", 0)


def test_a_text_in_use_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside_items, "MOST_TEXTS", 2)
    outside = OutsideItems(HashingEncoder(), ())
    outside.add(["first"])
    outside.add(["second"])
    outside.add(["first"])
    outside.add(["third"])
    assert list(outside) == ["first", "third"]
    assert outside.vectors.keys() == {"first", "third"}


def test_a_text_that_is_the_id_of_an_item_changes_nothing_for_others() -> None:
    async def run() -> None:
        async with serving("prior") as served:
            ids = [f"D{n:03}" for n in range(1, 31)]
            before = [await served.ask("/recommend", history=[item]) for item in ids]
            by_text = await served.ask("/recommend", history=[{"text": ids[0]}])
            await served.ask("/recommend", history=[{"text": item} for item in ids])
            after = [await served.ask("/recommend", history=[item]) for item in ids]
            assert [one["items"] for one in after] == [one["items"] for one in before]
            assert by_text["items"] == before[0]["items"]

    asyncio.run(run())


def test_the_list_is_that_of_the_command_recommend(server: FakeOpenAI) -> None:
    texts = ("a wool blanket", "a red enamel mug", "a puzzle for children", "a leather notebook")
    program = m3.program("listwise", load_dataset("demo"), model=server.model())

    async def run() -> None:
        async with serving("listwise", server.model()) as served, serving("prior") as alone:
            for history in (["D001", texts[0]], [texts[1]], [texts[2], "D002", texts[3], "D017", texts[2]]):
                sent = [{"text": one} if one in texts else one for one in history]
                found = await served.ask("/recommend", history=sent)
                expected = program.recommend(history, candidates=15, explain=False)
                assert [(item["item_id"], item["score"]) for item in found["items"]] == [
                    (item.item_id, item.score) for item in expected
                ]
                by_prior = await alone.ask("/recommend", history=sent, k=15)
                own = {text: Item.from_text(text) for text in history if text in texts}
                first = next(program.built(5, unlisted=own).retriever.first([history], 15))
                assert tuple(item["item_id"] for item in by_prior["items"]) == first

    asyncio.run(run())


def test_what_a_call_under_way_has_cost_is_said(server: FakeOpenAI) -> None:
    def respond(body: Body) -> Reply:
        # The profile comes at once, what comes after it too late.
        return replace(sensible(body), seconds=0.0 if not server.bodies[1:] else 2.0)

    server.respond = respond

    async def run() -> None:
        async with serving("listwise", server.model(), limits=ServiceLimits(deadline=1)) as served:
            found = await served.ask("/recommend", history=["D001"])
            assert (found["why"], found["calls"]) == ("deadline", 1)

    asyncio.run(run())


def test_a_manifest_that_is_a_pipe_or_has_no_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "manifest.json")
    assert artifact_fingerprint(tmp_path) is None
    (tmp_path / "manifest.json").unlink()
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    assert artifact_fingerprint(tmp_path) is None
