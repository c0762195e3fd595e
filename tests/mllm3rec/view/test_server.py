"""The view's server: its own addresses only, what `mllm3rec view --json` prints, and a missing extra."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.datastructures import QueryParams

from evaluate.runs.journal import Journal, RunManifest
from mllm3rec.view.elements import Place
from mllm3rec.view.server import OwnAddressOnly, listen
from programs.runtime.errors import InputError
from tests.support.command_line import CommandLine, buffered_environment, process_of


async def _plain(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"fine"})


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("127.0.0.1:8765", None, 200),
        ("localhost:8765", "http://localhost:8765", 200),
        ("evil.example:8765", None, 403),
        ("127.0.0.1:80", None, 403),
        ("127.0.0.1:8765", "http://evil.example", 403),
        ("127.0.0.1:8765", "https://127.0.0.1:8765", 403),
        ("127.0.0.1:8765", "null", 403),
    ],
)
def test_only_own_addresses_are_answered(host: str, origin: str | None, status: int) -> None:
    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(OwnAddressOnly(_plain, 8765))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/", headers={"Host": host} | ({} if origin is None else {"Origin": origin}))

    answer = asyncio.run(ask())
    assert answer.status_code == status
    if status == 200:
        assert "default-src 'self'" in answer.headers["content-security-policy"]


def test_a_socket_of_another_page_is_closed() -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    headers = [(b"host", b"127.0.0.1:8765"), (b"origin", b"http://evil.example")]
    asyncio.run(OwnAddressOnly(_plain, 8765)({"type": "websocket", "headers": headers}, receive, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


def test_a_port_in_use_is_named() -> None:
    with listen(0) as first:
        port = first.getsockname()[1]
        with pytest.raises(InputError, match=f"port {port}: .*--port"):
            listen(port)


def test_an_address_holds_the_state_of_its_page() -> None:
    place = Place("/compare", QueryParams("run=a&run=b%26c&theme=dark&log=1&page=x"))
    assert place.several("run") == ["a", "b&c"]
    assert place.number("page", 1) == 1
    assert place.here(log="", page=2) == "/compare?run=a&run=b%26c&theme=dark&page=2"
    assert place.to("/user", user="<u>") == "/user?theme=dark&user=%3Cu%3E"


def test_view_prints_where_it_is_and_what_it_found(tmp_path: Path) -> None:
    Journal.open(tmp_path / "run", RunManifest(cases_sha256="0", ranker="r")).close()
    command = process_of("view", tmp_path, "--port", 0, "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=buffered_environment()) as view:  # noqa: S603
        assert view.stdout is not None
        said = json.loads(view.stdout.readline())
        assert said["found"] == {"run": 1}
        assert said["folder"] == str(tmp_path)
        assert httpx.get(said["address"], timeout=30).status_code == 200
        assert httpx.get(said["address"], timeout=30, headers={"Host": "evil.example"}).status_code == 403
        view.send_signal(signal.SIGINT)
        assert view.wait(20) == 0


def test_without_the_extra_the_remedy_is_said(
    cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nicegui", None)
    ended = cli("view", tmp_path)
    assert ended.code == 2
    assert "pip install 'mllm3rec[view]'" in ended.err


def test_a_folder_that_is_not_there(cli: CommandLine, tmp_path: Path) -> None:
    ended = cli("view", tmp_path / "none", "--port", 0)
    assert ended.code == 2
    assert "no such folder" in ended.err
