"""A server in a process of its own that answers at once: every call gets the same answer, read by no parser.

    python benchmarks/instant_server.py [LATENCY]

It prints its port. It does as little as a server can, so that what is measured is the client: it finds the length of a
request in its head, and writes a constant answer after LATENCY seconds (default 0).
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TRAITS = json.dumps({"traits": ["good for one thing", "good for another", "easy to use"]})
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def response() -> bytes:
    """The whole answer, head and body."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": TRAITS}}
    usage = {"prompt_tokens": 470, "completion_tokens": 21, "total_tokens": 491}
    whole = {"id": "x", "object": "chat.completion", "created": 0, "model": "fake", "choices": [choice], "usage": usage}
    body = json.dumps(whole).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


class Instant(asyncio.Protocol):
    """One connection."""

    def __init__(self, latency: float, answer: bytes) -> None:
        self._latency = latency
        self._answer = answer
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._read += data
        while (end := self._read.find(b"\r\n\r\n")) >= 0:
            found = LENGTH.search(self._read, 0, end)
            size = end + 4 + int(found[1] if found else 0)
            if len(self._read) < size:
                return
            self._read = self._read[size:]
            if self._latency:
                asyncio.get_running_loop().call_later(self._latency, self._transport.write, self._answer)
            else:
                self._transport.write(self._answer)


async def serve(latency: float) -> None:
    """Answer until the process ends."""
    answer = response()
    server = await asyncio.get_running_loop().create_server(lambda: Instant(latency, answer), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextmanager
def started(latency: float = 0.0) -> Iterator[int]:
    """The port of a server that has begun."""
    process = subprocess.Popen([sys.executable, __file__, str(latency)], stdout=subprocess.PIPE, text=True)  # noqa: S603
    try:
        yield int((process.stdout or sys.stdin).readline())
    finally:
        process.terminate()


if __name__ == "__main__":
    try:
        import uvloop

        run = uvloop.run
    except ImportError:
        run = asyncio.run
    run(serve(*map(float, sys.argv[1:2] or ["0"])))
