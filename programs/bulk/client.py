"""HTTP client of the event loop: aiohttp with the rules of `programs.lm.transport`.

Whole-call deadline, no redirects, no proxy on the way to this machine, a limit on the size of an answer, no cookies.
"""

from __future__ import annotations

import aiohttp
from dspy.lm15 import Response, TransportError

from programs.bulk.rendered import Exchange
from programs.lm.transport import MOST_BYTES, too_large
from programs.runtime.errors import one_line


class Client:
    """Connections to servers, kept as long as the event loop."""

    def __init__(self) -> None:
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def send(self, exchange: Exchange, body: bytes) -> Response:
        """Send a request and read its answer.

        Raises:
            LM15Error: if it was not answered, or not as it should.
        """
        wire, transport = exchange.wire, exchange.engine.transport
        session = self._session(transport.through_proxies)
        timeout = aiohttp.ClientTimeout(total=transport.timeout, sock_connect=min(transport.timeout, 10.0))
        try:
            async with session.post(
                wire.url, data=body, headers=wire.headers, allow_redirects=False, timeout=timeout
            ) as answer:
                status, reason, headers = answer.status, answer.reason or "", list(answer.headers.items())
                raw = await _whole(answer)
        except TimeoutError as error:
            raise TransportError(transport.too_late) from error
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(one_line(error)) from error
        return exchange.read(status, reason, headers, raw)

    def _session(self, through_proxies: bool) -> aiohttp.ClientSession:
        if through_proxies not in self._sessions:
            # Calls wait in the rate limiter, never for a connection.
            self._sessions[through_proxies] = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=through_proxies,
            )
        return self._sessions[through_proxies]

    async def close(self) -> None:
        """Close the connections."""
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()


async def _whole(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for part in answer.content.iter_any():
        body += part
        if len(body) > MOST_BYTES:
            raise too_large(answer.status)
    return bytes(body)
