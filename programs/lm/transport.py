"""HTTP transport of model calls: one deadline for the whole call, no redirects, no proxy on the way to this machine."""

from __future__ import annotations

import ipaddress
import math
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

from dspy._vendor.lm15.transports import ReadTimeout, StdlibTransport, TransportRequest, TransportResponse
from dspy.lm15 import InvalidRequestError, ServerError

from programs.lm.keys import without_key
from programs.runtime.errors import abridged

CONNECTIONS = 1024
"""More than a rate limiter allows: calls wait in the limiter, where Ctrl-C interrupts them, never for a socket."""

MOST_BYTES = 32 << 20
"""Of one answer: far more than any model writes."""

_CHAT = "/chat/completions"
_KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key", "api-key")
_INSTEAD: ContextVar[Callable[[TransportRequest], TransportResponse] | None] = ContextVar("instead", default=None)


class Transport(StdlibTransport):
    """DSPy's transport, which follows no redirect, with a deadline that no trickle of bytes can move.

    A key that a server repeats in its answer goes no further.

    Attributes:
        through_proxies: Whether the proxies of the environment are used.

    Args:
        address: Base URL of the server; the proxies of the environment are for other machines than this one.
        timeout: Seconds a call may take, from the connection to the last byte of the answer.
        read: Turns the body of a chat completion with status 200 into what DSPy reads.
    """

    def __init__(self, address: str, timeout: float, read: Callable[[bytes], bytes]) -> None:
        super().__init__(
            connect_timeout=min(timeout, 10.0),
            read_timeout=timeout,
            write_timeout=timeout,
            pool_timeout=timeout,
            max_connections=CONNECTIONS,
            trust_env=(through_proxies := not is_this_machine(address)),
        )
        self.through_proxies = through_proxies
        self.timeout = timeout
        self._read = read
        self._deadline = _Deadline()

    def stream(self, request: TransportRequest) -> TransportResponse:
        """Send a request; the body of the answer has arrived whole when this returns, without the key.

        Raises:
            ReadTimeout: if the answer is not complete at the deadline.
            ServerError: if it is larger than `MOST_BYTES`, or is no answer of a model.
            InvalidRequestError: if the server sends callers to another address.
        """
        answer = _INSTEAD.get()
        response = self._sent(request) if answer is None else answer(request)
        body = self.checked(request, response.status, response.headers, response.read())
        return arrived(body, response.status, response.headers)

    def _sent(self, request: TransportRequest) -> TransportResponse:
        self._deadline.at = time.monotonic() + self.timeout
        try:
            with super().stream(request) as response:
                return arrived(whole(response, response.status), response.status, response.headers)
        except ReadTimeout as error:
            raise ReadTimeout(self.too_late) from error

    @property
    def too_late(self) -> str:
        """What to say of an answer that is not complete at the deadline."""
        return f"no complete answer within {self.timeout:g} s"

    def checked(self, request: TransportRequest, status: int, headers: list[tuple[str, str]], body: bytes) -> bytes:
        """The body of an answer without the key, and as DSPy reads it, whatever has brought it here.

        Raises:
            ServerError: if it is no answer of a model.
            InvalidRequestError: if the server sends callers to another address.
        """
        body = _without_keys(body, request)
        if 300 <= status < 400:
            raise _redirected(status, headers)
        return self._read(body) if status == 200 and urlsplit(request.url).path.endswith(_CHAT) else body

    def _open(self, *args: Any, **kwargs: Any) -> Any:
        connection = super()._open(*args, **kwargs)
        connection.sock = _BoundedSocket(connection.sock, self._deadline)
        return connection


def arrived(body: bytes, status: int, headers: Sequence[tuple[str, str]] = ()) -> TransportResponse:
    """An answer that has arrived whole."""
    return TransportResponse(
        status=status,
        reason="",
        headers=[*headers],
        http_version="HTTP/1.1",
        chunks=iter([body]),
        release=lambda body_consumed: None,
    )


@contextmanager
def instead_of_sending(answer: Callable[[TransportRequest], TransportResponse]) -> Iterator[None]:
    """Inside the block, requests of this thread are given to `answer` in place of the network."""
    token = _INSTEAD.set(answer)
    try:
        yield
    finally:
        _INSTEAD.reset(token)


def is_this_machine(address: str) -> bool:
    """Whether a URL leads to this machine's own loopback interface.

    >>> is_this_machine("http://localhost:8000/v1"), is_this_machine("http://[::1]:8000/v1")
    (True, True)
    >>> is_this_machine("https://api.example.com/v1")
    False
    """
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _Deadline(threading.local):
    """`time.monotonic()` at which the call of the current thread ends."""

    at = math.inf


class _BoundedSocket:
    """A socket whose every wait ends at the deadline of the current thread's call."""

    def __init__(self, sock: socket.socket, deadline: _Deadline) -> None:
        self._sock = sock
        self._deadline = deadline

    def recv(self, size: int) -> bytes:
        left = self._deadline.at - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._sock.settimeout(left if math.isfinite(left) else None)
        return self._sock.recv(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


def _without_keys(body: bytes, request: TransportRequest) -> bytes:
    """A body in which a server has repeated the key: error messages are shown, logged and kept in journals."""
    for name, value in request.headers:
        if name.lower() in _KEY_HEADERS:
            # Every byte is a character of Latin-1, so that what is no text survives.
            body = without_key(body.decode("latin-1"), value.rpartition(" ")[2]).encode("latin-1")
    return body


def _redirected(status: int, headers: list[tuple[str, str]]) -> InvalidRequestError:
    """An error that names the other address, without what may be secret in it."""
    location = next((value for name, value in headers if name.lower() == "location"), "")
    parts = urlsplit(location)
    target = f"{parts.scheme}://{parts.hostname}" if parts.hostname else "another address"
    return InvalidRequestError(
        f"HTTP {status}: the server redirects to {abridged(target)}, and redirects are never followed",
        status=status,
    )


def whole(parts: Iterable[bytes], status: int) -> bytes:
    """The body of an answer. Raises `ServerError` if it is larger than `MOST_BYTES`."""
    body = bytearray()
    for part in parts:
        body += part
        if len(body) > MOST_BYTES:
            raise too_large(status)
    return bytes(body)


def too_large(status: int) -> ServerError:
    """The error for an answer that is larger than any model's."""
    return ServerError(f"the server's answer is larger than {MOST_BYTES >> 20} MB", status=status)
