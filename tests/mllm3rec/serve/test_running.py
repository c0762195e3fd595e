"""The command: signals, addresses, and a page that another process reads."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from mcp import Client

from mllm3rec.serve.connections import most_connections
from programs.runtime.environment import variable
from tests.support.command_line import CommandLine, buffered_environment, process_of
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible
from tests.support.paths import ROOT
from tests.support.served import freeze


@contextmanager
def served(*arguments: object, **environment: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of `mllm3rec serve` in a process of its own, and that process."""
    command = process_of("serve", *arguments, "--port", 0, "--json")
    process = subprocess.Popen(  # noqa: S603 - our own command
        command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=buffered_environment() | environment
    )
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
        assert said.keys() >= {"address", "program", "artifact", "versions"}
        yield said["address"].rstrip("/"), process
    finally:
        process.kill()
        process.wait()


def test_sigterm_answers_what_is_under_way_and_sighup_reloads(tmp_path: Path) -> None:
    def respond(body: Body) -> Reply:
        reply = sensible(body)
        reply.seconds = 0.2
        return reply

    folder = tmp_path / "artifact"
    with FakeOpenAI(respond) as server:
        first = freeze(folder, server.model())
        with served(folder, "demo") as (url, process):
            assert httpx.get(f"{url}/healthz").json()["artifact"] == first
            second = freeze(folder, server.model(), 0.5)
            process.send_signal(signal.SIGHUP)
            until = time.monotonic() + 20
            while httpx.get(f"{url}/healthz").json()["artifact"] != second:
                assert time.monotonic() < until
                time.sleep(0.05)
            found: list[httpx.Response] = []

            def ask() -> None:
                found.append(httpx.post(f"{url}/recommend", json={"history": ["D001"]}, timeout=60))

            asking = threading.Thread(target=ask)
            asking.start()
            while not server.bodies:
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            asking.join()
            assert found[0].json()["answered_by"] == "program"
            assert process.wait(20) == 0


def _hanging(text: str) -> Callable[[Body], Reply]:
    """Answers of a server that takes minutes to embed a text."""

    def respond(body: Body) -> Reply:
        reply = sensible(body)
        reply.seconds = 120.0 if text in str(body.get("input")) else 0.0
        return reply

    return respond


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_although_a_text_is_still_being_embedded(number: signal.Signals) -> None:
    with (
        FakeOpenAI(_hanging("orange kettle")) as server,
        served("prior", "demo", "--deadline", 1, **{variable("encoder"): server.model()}) as (url, process),
    ):
        found = httpx.post(f"{url}/recommend", json={"history": [{"text": "an orange kettle"}]}, timeout=60)
        assert found.json()["why"] == "deadline"
        process.send_signal(number)
        assert process.wait(20) == 0


def test_it_ends_although_the_catalogue_is_still_being_embedded() -> None:
    with FakeOpenAI(_hanging("")) as server:
        command = process_of("serve", "prior", "demo", "--port", 0, "--json")
        environment = buffered_environment() | {variable("encoder"): server.model()}
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=ROOT, env=environment) as process:  # noqa: S603
            try:
                while not server.bodies:
                    assert process.poll() is None
                    time.sleep(0.01)
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == 128 + signal.SIGTERM
            finally:
                process.kill()


def _opened(url: str, count: int, said: bytes) -> list[socket.socket]:
    address = urlsplit(url)
    assert address.hostname is not None
    assert address.port is not None
    opened = []
    for _ in range(count):
        opened.append(socket.create_connection((address.hostname, address.port)))
        opened[-1].sendall(said)
    return opened


def _ended(connection: socket.socket, seconds: float) -> bytes:
    """What a connection gets until it is closed, which must be in time."""
    connection.settimeout(seconds)
    received = b""
    while part := connection.recv(1000):
        received += part
    return received


def test_connections_that_bring_nothing_are_closed_and_shut_nobody_out() -> None:
    head = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\n"
    with served("prior", "demo", "--receive-seconds", 2) as (url, process):
        half, silent = _opened(url, 40, head), _opened(url, 5, b"")
        slow = _opened(url, 1, head + b"Content-Length: 9\r\nContent-Type: application/json\r\n\r\n{")
        whole = _opened(url, 1, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while not answer.endswith(b"}"):
            answer += whole[0].recv(1000)
        assert answer.startswith(b"HTTP/1.1 200")
        whole[0].sendall(b"GET /healthz HTTP/1.1\r\n")  # the head of a second request has no end either
        assert {_ended(one, 5) for one in (*half, *silent, *whole)} == {b""}
        assert _ended(slow[0], 10).startswith(b"HTTP/1.1 408")
        assert httpx.get(f"{url}/healthz").status_code == 200
        many = _opened(url, most_connections() + 10, head)
        for _ in range(3):
            assert httpx.get(f"{url}/healthz", timeout=5).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
        for one in (*half, *silent, *slow, *whole, *many):
            one.close()


def test_mcp_over_http(server: FakeOpenAI) -> None:
    async def run(url: str) -> None:
        async with Client(f"{url}/mcp") as client:
            found = await client.call_tool("recommend", {"history": ["D001"], "k": 1})
            assert found.structured_content is not None
            assert found.structured_content["answered_by"] == "program"

    with served("listwise", "demo", "--model", server.model()) as (url, _):
        asyncio.run(run(url))


@pytest.mark.parametrize(
    ("arguments", "key", "said"),
    [
        (("--host", "192.0.2.7"), "", "without a key only this machine"),
        (("--host", "::"), "k" * 16, "--allow-host"),
        ((), "short", "at least 16"),
        (("--deadline", "inf"), "", "limits: deadline: Input should be a finite number"),
        (("--usd-per-minute", "inf"), "", "limits: usd_per_minute"),
    ],
)
def test_unsafe_addresses_keys_and_limits_are_refused(
    cli: CommandLine, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], key: str, said: str
) -> None:
    monkeypatch.setenv(variable("bearer"), key)
    ended = cli("serve", "prior", "demo", *arguments)
    assert ended.code == 2
    assert said in ended.err
    if key:
        assert key not in ended.err


def test_standard_output_cannot_hold_both_mcp_and_json(cli: CommandLine) -> None:
    ended = cli("serve", "prior", "demo", "--mcp", "--json")
    assert (ended.code, ended.out) == (2, "")
    assert "leave one of them out" in ended.err


def test_a_baseline_is_not_served(cli: CommandLine) -> None:
    ended = cli("serve", "popularity", "demo")
    assert ended.code == 2
    assert "serve an artifact" in ended.err


def test_a_port_in_use_is_named(cli: CommandLine, server: FakeOpenAI) -> None:
    port = server.url.rpartition(":")[2].partition("/")[0]
    ended = cli("serve", "prior", "demo", "--port", port)
    assert ended.code == 2
    assert "choose another --host or --port" in ended.err
