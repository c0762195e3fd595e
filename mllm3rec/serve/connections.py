"""Connections of the HTTP service: one that brings no request in time is closed; where there are many, sooner."""

from __future__ import annotations

import asyncio
from typing import Any

MOST_CONNECTIONS = 1000
"""At a time; further ones get 503 when as many have requests under way."""

ACCEPTED = 64
"""Connections that are accepted at a time, before those that they take the place of are closed."""

_FILES = 4096
"""Open files that suffice for as many connections, and for calls to models beside them."""


def most_connections() -> int:
    """How many connections this process can hold, after asking the operating system for more files where it has few."""
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return MOST_CONNECTIONS
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != resource.RLIM_INFINITY and files < _FILES:
        files = _FILES if most == resource.RLIM_INFINITY else max(files, min(_FILES, most))
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    return MOST_CONNECTIONS if files == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, files // 4)


def impatient_protocol(seconds: float, most: int) -> type[asyncio.Protocol]:
    """Uvicorn's protocol with a limit on the time without a request, which it has only between two requests.

    Args:
        seconds: In which the head of a request must have come, from the connection or the last answer on.
        most: Connections at a time; a new one takes the place of that which has been without a request longest.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    return type("ImpatientProtocol", (_Impatient, AutoHTTPProtocol), {"seconds": seconds, "most": most, "waiting": {}})


class _Impatient(asyncio.Protocol):
    """What is added to uvicorn's protocol.

    Attributes:
        waiting: Connections without a request, in the order in which they began to wait; of all connections.
        connections, cycle, loop, transport: Uvicorn's.
    """

    seconds: float
    most: int
    waiting: dict[_Impatient, asyncio.TimerHandle]
    connections: set[Any]
    cycle: Any
    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if len(self.connections) >= self.most and self.waiting:
            next(iter(self.waiting)).give_up()
        self._look()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        super().on_response_complete()  # type: ignore[misc] # uvicorn's
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        super().connection_lost(exc)

    def give_up(self) -> None:
        self._leave()
        self.connections.discard(self)  # at once: for the request of a new one these are counted
        self.transport.close()

    def _look(self) -> None:
        under_way = self.cycle is not None and not self.cycle.response_complete
        if under_way or self.transport.is_closing():
            self._leave()
        elif self not in self.waiting:
            self.waiting[self] = self.loop.call_later(self.seconds, self.give_up)

    def _leave(self) -> None:
        if (timer := self.waiting.pop(self, None)) is not None:
            timer.cancel()
