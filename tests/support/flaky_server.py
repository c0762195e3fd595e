"""A fake server with bad days: it turns calls away, is slow, or dies half-way."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque

from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible
from tests.support.local_server import LocalServer


class FlakyOpenAI(FakeOpenAI):
    """Sends some replies first, is slow, or dies after so many answers.

    Attributes:
        answered: Answers with status 200.
        most: Most requests it was busy with at a time.
    """

    def __init__(self, first: tuple[Reply, ...] = (), seconds: float = 0.0, dies_after: int | None = None) -> None:
        super().__init__(self._reply)
        self.first = deque(first)
        self.seconds = seconds
        self.dies_after = dies_after
        self.answered = self.most = self.busy = 0
        self._counting = threading.Lock()
        self._grave: socket.socket | None = None

    def _reply(self, body: Body) -> Reply:
        with self._counting:
            if self.first:
                return self.first.popleft()
            if self.answered == self.dies_after:
                self.die()
                raise ConnectionAbortedError
            self.answered += 1
            self.busy += 1
            self.most = max(self.most, self.busy)
        time.sleep(self.seconds)
        with self._counting:
            self.busy -= 1
        return sensible(body)

    def die(self) -> None:
        """Nobody can connect any more; the port stays taken, so that no other server comes back under it."""
        if self._grave is None:
            self._server.shutdown()
            self._server.server_close()
            self._grave = socket.socket()
            self._grave.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._grave.bind(self._server.server_address)

    def rise(self) -> None:
        """The server is back at its address, if it was gone."""
        if self._grave is not None:
            self._grave.close()
            self._grave = None
            dead = self._server
            self._server = LocalServer(dead.server_address, dead.RequestHandlerClass)
            self.__enter__()

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._grave is not None:
            self._grave.close()
