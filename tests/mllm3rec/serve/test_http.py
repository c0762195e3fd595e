"""HTTP: what is answered, by whom, what is refused, and what is never said."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from evaluate.data.load import load_dataset
from mllm3rec.serve import program_pool
from mllm3rec.serve.limits import ServiceLimits
from programs.lm.ledger import read_calls
from programs.lm.prices import use_prices
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible
from tests.support.served import Served, freeze, serving

HISTORY = ["D001", "D002", "D017"]


def test_the_program_answers_a_new_user(server: FakeOpenAI, tmp_path: Path) -> None:
    sha256 = freeze(tmp_path / "artifact", server.model())

    async def run() -> None:
        async with serving(tmp_path / "artifact") as served:
            history: list[Any] = [
                "D001",
                "gone",
                {"text": "a wool blanket for winter nights"},
                {"item": "D002", "rating": 5},
            ]
            found = await served.ask("/recommend", history=history, k=3, explain=True)
            assert (found["answered_by"], found["why"], found["unknown_items"]) == ("program", None, ["gone"])
            assert found["artifact"] == sha256
            assert found["versions"]["dspy"]
            assert found["calls"] == len(server.bodies) > 0
            assert [item["item_id"] for item in found["items"]] != []
            assert len(found["items"]) == 3
            assert all(item["reason"] and item["traits"] for item in found["items"])
            assert not {"D001", "D002"} & {item["item_id"] for item in found["items"]}
            assert "wool blanket" in json.dumps(server.bodies[0])
            again = await served.ask("/recommend", history=history, k=3, explain=True)
            assert (again["calls"], again["items"]) == (0, found["items"])

    asyncio.run(run())


def test_a_free_text_changes_what_the_prior_retrieves() -> None:
    async def first(served: Served, text: str) -> str:
        found = await served.ask("/recommend", history=[{"text": text}], k=1)
        assert found["why"] == "prior"
        title: str = found["items"][0]["title"]
        return title

    async def run() -> None:
        async with serving("prior") as served:
            assert "Blanket" in await first(served, "wool blanket")
            assert "Knife" in await first(served, "chef's knife")

    asyncio.run(run())


def test_profile_traits_and_reasons(server: FakeOpenAI) -> None:
    async def run() -> None:
        async with serving("listwise", server.model()) as served:
            profile = await served.ask("/profile", history=HISTORY)
            assert profile["motivations"][0]["evidence"]
            traits = await served.ask("/traits", text="an enamel mug")
            assert "good for enamel" in traits["traits"]
            reason = await served.ask("/explain", history=HISTORY, item="D005")
            assert reason["reason"]
            assert reason["motivations"] == profile["motivations"]
            unknown = await served.client.post("/explain", json={"history": HISTORY, "item": "gone"})
            assert unknown.status_code == 400
            assert "send a `text`" in unknown.json()["error"]

    asyncio.run(run())


def test_nothing_known_is_answered_by_the_prior_and_nobody_is_refused(server: FakeOpenAI) -> None:
    async def run() -> None:
        async with serving("listwise", server.model()) as served:
            for history in ([], ["gone"]):
                found = await served.ask("/recommend", history=history)
                assert (found["answered_by"], found["why"]) == ("prior", "unknown")
                assert len(found["items"]) == 5
            assert (await served.client.post("/recommend", json={"user": "gone"})).status_code == 400
            assert (await served.client.post("/profile", json={"history": []})).status_code == 400

    asyncio.run(run())
    assert server.bodies == []


def test_after_the_deadline_the_prior_answers_and_what_was_in_flight_is_kept() -> None:
    slow = 0.6

    def respond(body: Body) -> Reply:
        reply = sensible(body)
        reply.seconds = slow
        return reply

    async def run() -> None:
        with FakeOpenAI(respond) as server:
            limits = ServiceLimits(deadline=0.3)
            async with serving("listwise", server.model(), limits=limits) as served:
                began = time.monotonic()
                found = await served.ask("/recommend", history=HISTORY)
                assert time.monotonic() - began < slow
                assert (found["answered_by"], found["why"]) == ("prior", "deadline")
                await asyncio.sleep(slow)
                assert len(server.bodies) == 1  # nothing is sent after the deadline
                await served.ask("/recommend", history=HISTORY)
                assert server.bodies[1] != server.bodies[0]  # the first answer was kept
                await asyncio.sleep(slow)

    asyncio.run(run())


def test_the_budget_of_a_minute_is_kept_over_a_restart(server: FakeOpenAI, tmp_path: Path) -> None:
    prices, ledger = tmp_path / "prices.toml", tmp_path / "ledger.jsonl"
    prices.write_text(
        f'dated = 2026-01-31\nsource = "ours"\n[models]\n"{server.model()}" = {{ input = 10.0, output = 10.0 }}\n'
    )
    limits = ServiceLimits(usd_per_minute=0.5)

    async def run(users: int) -> list[str]:
        async with serving("listwise", server.model(), limits=limits, ledger=ledger) as served:
            first = await served.ask("/recommend", history=["D001", "D021"])
            assert first["answered_by"] == "program"
            asked = [served.ask("/recommend", history=[f"D{n:03}", f"D{n + 20:03}"]) for n in range(2, users)]
            return [found["why"] or found["answered_by"] for found in await asyncio.gather(*asked)]

    def spent() -> float:
        return sum(call.at_most_usd for call in read_calls(ledger) if not call.hit)

    with use_prices(prices):
        assert "budget" in asyncio.run(run(20))
        assert 0 < spent() <= 0.5
        served = len(server.bodies)
        assert set(asyncio.run(run(20))) <= {"program", "budget"}
        assert spent() <= 0.5
        assert len(server.bodies) - served < 5


@pytest.mark.usefixtures("hurried")
def test_failures_of_models_are_answered_by_the_prior() -> None:
    async def why(server: FakeOpenAI) -> str:
        async with serving("listwise", server.model()) as served:
            found = await served.ask("/recommend", history=HISTORY)
            assert found["items"]
            assert (await served.client.post("/profile", json={"history": HISTORY})).status_code == 503
            reason: str = found["why"]
            return reason

    with FakeOpenAI(lambda body: Reply("not JSON")) as server:
        assert asyncio.run(why(server)) == "unparsable"
    with FakeOpenAI(lambda body: Reply("no such key", status=401)) as server:
        assert asyncio.run(why(server)) == "backend"
    assert asyncio.run(why(server)) == "backend"  # it is closed


def test_what_no_program_can_answer_is_no_failure_of_a_model(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        async with serving("prior") as served:
            for path, wanted in (
                ("/profile", {"history": HISTORY}),
                ("/traits", {"item": "D001"}),
                ("/explain", {"history": HISTORY, "item": "D005"}),
            ):
                answer = await served.client.post(path, json=wanted)
                assert (answer.status_code, answer.headers.get("Retry-After")) == (400, None)
                assert answer.json()["error"].startswith("prior: this program ")

    asyncio.run(run())
    assert "did not answer" not in caplog.text


def test_a_user_who_has_all_items_gets_none_and_no_model_is_blamed(
    server: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    async def run(name: str, *model: str) -> None:
        async with serving(name, *model) as served:
            found = await served.ask("/recommend", history=sorted(load_dataset("demo").items))
            assert (found["items"], found["answered_by"], found["why"]) == ([], "prior", "none_left")
            assert 'mllm3rec_answers_total{by="prior",why="none_left"} 1.0' in served.service.metrics.text().decode()

    asyncio.run(run("listwise", server.model()))
    asyncio.run(run("prior"))
    assert server.bodies == []
    assert "did not answer" not in caplog.text


def test_traits_of_a_text_that_the_provider_refuses_are_not_none() -> None:
    async def run(server: FakeOpenAI) -> None:
        async with serving("listwise", server.model()) as served:
            for _ in range(2):  # the second time it is known, and not asked again
                answer = await served.client.post("/traits", json={"item": "D001"})
                assert (answer.status_code, answer.headers.get("Retry-After")) == (503, None)
                assert answer.json()["error"] == "the provider refuses this text"

    refusing = Reply("the response was filtered by the content management policy", status=400)
    with FakeOpenAI(lambda body: refusing) as server:
        asyncio.run(run(server))
        assert len(server.bodies) == 1


def test_requests_are_limited() -> None:
    async def run() -> None:
        async with serving("prior", limits=ServiceLimits(requests_per_minute=2)) as served:
            codes = [(await served.client.post("/recommend", json={"history": []})) for _ in range(3)]
            assert [code.status_code for code in codes] == [200, 200, 429]
            assert 1 <= int(codes[2].headers["Retry-After"]) <= 60

    asyncio.run(run())


def test_who_may_come_in() -> None:
    key = "a key of this service"

    async def run() -> None:
        async with serving("prior", key=key, body_bytes=2000) as served:
            client = served.client

            async def code(headers: dict[str, str], **body: Any) -> int:
                return (await client.post("/recommend", json={"history": []} | body, headers=headers)).status_code

            assert await code({}) == 200
            for wrong in ("", "Bearer", "Bearer no", f"Basic {key}", f"Bearer {key}x"):
                assert await code({"Authorization": wrong}) == 401
            assert await code({"Host": "evil.example"}) == 421
            assert await code({"Host": "localhost:8000"}) == 200
            assert await code({"Origin": "http://evil.example"}) == 403
            assert await code({"Origin": "null"}) == 403
            assert await code({"Origin": "http://["}) == 403
            assert await code({"Origin": "http://localhost"}) == 200
            assert await code({}, metadata={"x": "y" * 3000}) == 413

            async def endless() -> Any:
                while True:
                    yield b" " * 1000

            assert (await client.post("/recommend", content=endless())).status_code == 413
            assert (await client.get("/healthz", headers={"Authorization": ""})).status_code == 200
            assert (await client.get("/metrics", headers={"Authorization": ""})).status_code == 401
            metrics = (await client.get("/metrics")).text
            assert 'mllm3rec_requests_total{path="/recommend",status="401"} 5.0' in metrics
            page = await client.get("/")
            assert "POST /recommend" in page.text
            assert "src=" not in page.text
            assert key not in page.text + metrics + (await client.get("/openapi.json")).text

    asyncio.run(run())


def test_a_new_artifact_is_taken_and_a_bad_one_is_not(server: FakeOpenAI, tmp_path: Path) -> None:
    folder, other = tmp_path / "artifact", tmp_path / "other"
    first, second = freeze(folder, server.model()), freeze(other, server.model(), 0.5)

    async def run() -> None:
        async with serving(folder, key="k" * 16) as served:
            slow = asyncio.create_task(served.ask("/recommend", history=HISTORY))
            await asyncio.sleep(0)
            shutil.rmtree(folder)
            shutil.copytree(other, folder)
            answer = await served.client.post("/reload")
            assert answer.json() == {"changed": True, "artifact": second}
            assert (await slow)["artifact"] == first
            assert (await served.ask("/recommend", history=HISTORY))["artifact"] == second
            assert (await served.client.post("/reload")).json()["changed"] is False
            program = folder / "program.json"
            program.write_text(program.read_text().replace("shopper", "buyer"))
            answer = await served.client.post("/reload")
            assert answer.status_code == 409
            assert "program.json" in answer.json()["error"]
            health = (await served.client.get("/healthz")).json()
            assert health["artifact"] == second
            assert health["reload_error"] == "not usable", "anybody may read it: it names no path"
            assert (await served.ask("/recommend", history=HISTORY))["artifact"] == second

    asyncio.run(run())


def test_files_that_change_are_noticed(server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program_pool, "LOOK", 0.05)
    folder = tmp_path / "artifact"
    freeze(folder, server.model())

    async def run() -> None:
        async with serving(folder) as served:
            assert (await served.client.post("/reload")).status_code == 404  # needs a key
            second = freeze(folder, server.model(), 0.5)
            for _ in range(200):
                await asyncio.sleep(0.05)
                if served.service.health().artifact == second:
                    return
            raise AssertionError("the new artifact was not taken")

    asyncio.run(run())


def test_an_artifact_whose_files_come_slowly_is_taken_when_it_is_whole(
    server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program_pool, "LOOK", 0.05)
    monkeypatch.setattr(program_pool, "_TRIES", 2)
    folder, other = tmp_path / "artifact", tmp_path / "other"
    first, second = freeze(folder, server.model()), freeze(other, server.model(), 0.5, "pointwise")
    files = sorted(path.relative_to(other) for path in other.rglob("*") if path.is_file())
    assert files[0] == Path("manifest.json"), "in this order they are copied"

    async def run() -> None:
        async with serving(folder) as served:
            for count, file in enumerate(files, start=1):
                (folder / file).parent.mkdir(exist_ok=True)
                shutil.copy(other / file, folder / file)
                if count == 1:
                    for _ in range(200):
                        await asyncio.sleep(0.05)
                        if 'reloads_total{taken="false"} 2.0' in served.service.metrics.text().decode():
                            break
                    await asyncio.sleep(0.3)
                    shutil.rmtree(folder / "prompts")  # those of another program do not belong to it
                if count < len(files):
                    assert (await served.ask("/recommend", history=HISTORY))["artifact"] == first
                    assert served.service.health().artifact == first
            for _ in range(200):
                await asyncio.sleep(0.05)
                if served.service.health().artifact == second:
                    break
            assert served.service.health().artifact == second
            assert served.service.health().reload_error is None
            assert 'reloads_total{taken="true"} 1.0' in served.service.metrics.text().decode()

    asyncio.run(run())


def test_a_log_holds_no_prompt_and_no_key(caplog: pytest.LogCaptureFixture) -> None:
    secret, text = "sk-very-secret-key", "an orange kettle of my aunt"
    replies = [Reply("not JSON"), Reply(f"no {secret} {text}", status=401), Reply(text, status=400)]

    async def run(server: FakeOpenAI) -> str:
        async with serving("listwise", server.model()) as served:
            answers = [await served.client.post("/profile", json={"history": [{"text": text}]}) for _ in range(3)]
            return " ".join(answer.text for answer in answers)

    caplog.set_level(logging.DEBUG, "mllm3rec")
    for reply in replies:
        with FakeOpenAI(lambda body, reply=reply: reply) as server:  # type: ignore[misc]
            answers = asyncio.run(run(server))
        assert secret not in answers
    assert text not in caplog.text
    assert secret not in caplog.text
