"""HTTP server of the view: on this machine only, for addresses of its own only, without any request to elsewhere."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI
from nicegui import ui

from mllm3rec.view.comparison_page import comparison_page
from mllm3rec.view.compile_page import compile_page
from mllm3rec.view.frame import add_page
from mllm3rec.view.item_page import item_page
from mllm3rec.view.library import Library
from mllm3rec.view.motivation_page import motivation_page
from mllm3rec.view.playground_page import playground_page
from mllm3rec.view.runs_page import runs_page
from mllm3rec.view.user_page import user_page
from programs.lm.response_cache import use_response_cache
from programs.runtime.environment import cache_dir
from programs.runtime.errors import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

HOST = "127.0.0.1"


class OwnAddressOnly:
    """Refuses requests that were not made to, and by a page of, an address of this machine.

    A page from elsewhere could otherwise reach the view by a name that its owner points to 127.0.0.1 (DNS rebinding).

    Args:
        port: That the server listens to.
    """

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app = app
        self.hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
        own = " ".join(f"ws://{host}" for host in sorted(self.hosts))
        # NiceGUI's pages have scripts and styles in them, and Vue compiles templates.
        self.policy = (
            "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
            "style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; font-src 'self' data:; "
            f"connect-src 'self' {own}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        origin = headers.get(b"origin")
        if headers.get(b"host") not in self.hosts or (origin is not None and not self._is_own(origin)):
            await _refuse(scope, send)
            return

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    (b"content-security-policy", self.policy.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"no-referrer"),
                ]
            await send(message)

        await self.app(scope, receive, with_policy)

    def _is_own(self, origin: str) -> bool:
        return origin.removeprefix("http://") in self.hosts and origin.startswith("http://")


async def _refuse(scope: Scope, send: Send) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008})
        return
    body = b"This address is not the one that mllm3rec view printed."
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


def listen(port: int) -> socket.socket:
    """A socket on this machine's own address.

    Args:
        port: 0 for any that is free.

    Raises:
        InputError: if another program uses the port.
    """
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        own.bind((HOST, port))
        own.listen()
    except OSError as error:
        own.close()
        raise InputError(f"port {port}: {error.strerror}; give another one with --port, or 0 for any") from None
    return own


def serve_view(library: Library, listening: socket.socket) -> None:
    """Serve the pages of a folder until Ctrl-C."""
    use_response_cache(cache_dir() / "calls.sqlite")
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    add_page(library, "/", "Runs", runs_page)
    add_page(library, "/compare", "Comparison", comparison_page)
    add_page(library, "/user", "User", user_page)
    add_page(library, "/compile", "Compile", compile_page)
    add_page(library, "/item", "Item", item_page)
    add_page(library, "/motivation", "Motivation", motivation_page)
    add_page(library, "/playground", "Playground", playground_page)
    ui.run_with(app, title="M-LLM³Rec", dark=None, language="en-US", show_welcome_message=False)
    guarded = OwnAddressOnly(app, listening.getsockname()[1])
    config = uvicorn.Config(guarded, log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])
