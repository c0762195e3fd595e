"""The HTTP server behind all fake ones."""

from __future__ import annotations

import sys
from http.server import ThreadingHTTPServer
from typing import Any


class LocalServer(ThreadingHTTPServer):
    """Serves on this machine, each request in a thread of its own.

    A client that is gone, because a test kills it, is no error. Its traceback would not only fill the output: Python
    before 3.11.8 fails to parse source code in one thread while another formats a traceback (python/cpython#106905).
    """

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print what went wrong, unless the client is gone."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
