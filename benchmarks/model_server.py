"""An OpenAI-compatible server in a process of its own, on loopback: keeps connections, counts nothing.

    python benchmarks/model_server.py LATENCY SLOTS [PORT]

It prints its port, and answers after LATENCY seconds, SLOTS calls at a time. It has a core of its own where that can be
said, as if it were elsewhere. The server of the tests is another: it counts, can fail in many ways, and is slower.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FIELD = re.compile(r"JSON: (\w+)")
LABEL = re.compile(r"^(\d\d): ", re.MULTILINE)
VALUES: dict[str, Any] = {
    "motivations": [
        {"dimension": "durability", "description": "wants what lasts", "strength": "strong", "evidence": [1]},
        {"dimension": "value", "description": "wants much for little", "strength": "weak", "evidence": [1]},
    ],
    "reassessments": [{"number": 1, "action": "keep", "description": ""}],
    "traits": ["good for one thing", "good for another", "easy to use"],
}


def answer(body: dict[str, Any]) -> str:
    """A valid answer to a question of the listwise or the pointwise program."""
    prompt = body["messages"][-1]["content"]
    asked = FIELD.search(prompt)
    if asked is None:
        return "4"
    field = asked[1]
    value = [int(label) for label in LABEL.findall(prompt)] if field == "ranking" else VALUES[field]
    return json.dumps({field: value})


async def serve(latency: float, slots: int, port: int = 0) -> None:
    """Answer until the process ends."""
    free = asyncio.Semaphore(slots)

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = json.loads(await reader.readexactly(int(length.split(b":")[1])))
            async with free:
                await asyncio.sleep(latency)
            message = {"role": "assistant", "content": answer(body)}
            usage = {"prompt_tokens": 500, "completion_tokens": 50, "total_tokens": 550}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            whole = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
            payload = json.dumps({**whole, "choices": [choice], "usage": usage}).encode()
            line = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
            writer.write(line.encode() + payload)

    async def until_closed(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await connected(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(until_closed, "127.0.0.1", port, limit=1 << 20)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def keep_to_core(server: bool) -> None:
    """Leave the last core to the server, and the server to it, where that can be said."""
    if hasattr(os, "sched_setaffinity") and len(cores := os.sched_getaffinity(0)) > 1:
        os.sched_setaffinity(0, {max(cores)} if server else cores - {max(cores)})


@contextmanager
def started(latency: float = 0.0, slots: int = 64, port: int = 0) -> Iterator[int]:
    """The port of a server that has begun; this process leaves the last core to it."""
    command = [sys.executable, __file__, str(latency), str(slots), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - this very file
    try:
        port = int((process.stdout or sys.stdin).readline())
        keep_to_core(server=False)
        yield port
    finally:
        process.terminate()


if __name__ == "__main__":
    keep_to_core(server=True)
    asyncio.run(serve(float(sys.argv[1]), *map(int, sys.argv[2:])))
