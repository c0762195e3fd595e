"""Guard of the HTTP service, an ASGI middleware: Host, Origin, bearer key and size, before a request is read."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from mllm3rec.serve.service_metrics import ServiceMetrics

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN_PATHS = frozenset({"/", "/healthz", "/openapi.json"})
"""Answered without a key: they hold nothing of users."""

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})

ANY_HOST = "*"


@dataclass(frozen=True)
class _RefusedError(Exception):
    status: int
    message: str


@dataclass
class Guard:
    """Refuses what may not come in, and counts every request.

    A web page that a user of this machine visits must not reach the service: it would send its own Origin, or, after
    its name was pointed at this machine, its own name as Host.

    Attributes:
        app: What it guards.
        hosts: Names under which the service may be called; `ANY_HOST` for any.
        key: That requests must bear; None for none.
        body_bytes: Largest body.
        paths: Paths that are counted by name; others are counted together.
        receive_seconds: In which the body must have come.
    """

    app: App
    metrics: ServiceMetrics
    hosts: Collection[str]
    key: str | None
    body_bytes: int
    paths: Collection[str]
    receive_seconds: float = 10.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.monotonic(), 500

        async def noted(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self.metrics.in_flight.inc()
        try:
            self._check(scope)
            await self.app(scope, await self._in_time(receive), noted)
        except _RefusedError as refusal:
            await _refuse(refusal, noted)
        finally:
            self.metrics.in_flight.dec()
            path = scope["path"] if scope["path"] in self.paths else "other"
            self.metrics.request(path, status, time.monotonic() - began)

    async def _in_time(self, receive: Receive) -> Receive:
        try:
            return await asyncio.wait_for(self._with_body(receive), self.receive_seconds)
        except TimeoutError:
            raise _RefusedError(408, f"the request did not come within {self.receive_seconds:g} s") from None

    async def _with_body(self, receive: Receive) -> Receive:
        """Read the body, and return what gives it to the application in one piece."""
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self.body_bytes:
                raise _RefusedError(413, self._too_large)
        waiting = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def again() -> MutableMapping[str, Any]:
            return waiting.pop() if waiting else await receive()

        return again

    @property
    def _too_large(self) -> str:
        return f"the request is larger than {self.body_bytes} bytes: send a shorter history"

    def _check(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        host = headers.get(b"host", b"").decode("latin-1")
        if ANY_HOST not in self.hosts and _name(host) not in self.hosts:
            raise _RefusedError(421, "this service is not called by that name: start it with --allow-host NAME")
        origin = headers.get(b"origin")
        if origin is not None and _address(origin.decode("latin-1")) != host:
            raise _RefusedError(403, "requests of other web pages are refused: call the service from a server")
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self.body_bytes:
            raise _RefusedError(413, self._too_large)
        if self.key is not None and scope["path"] not in OPEN_PATHS:
            scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
            if scheme.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self.key.encode()):
                raise _RefusedError(401, "send the key of this service: Authorization: Bearer KEY")


def _name(host: str) -> str:
    """The name in a Host header, without its port.

    >>> _name("localhost:8000"), _name("[::1]:8000"), _name("LOCALHOST")
    ('localhost', '::1', 'localhost')
    """
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _address(origin: str) -> str | None:
    """Name and port in an Origin header; None for what is no address, which is foreign.

    >>> _address("http://localhost:8000"), _address("http://[")
    ('localhost:8000', None)
    """
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return None


async def _refuse(refusal: _RefusedError, send: Send) -> None:
    body = f'{{"error":"{refusal.message}"}}'.encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if refusal.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
