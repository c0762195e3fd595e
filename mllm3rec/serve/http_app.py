"""HTTP interface of the service, a FastAPI application; its pages load nothing from elsewhere."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse
from starlette.exceptions import HTTPException

from mllm3rec.serve.api_page import CONTENT_POLICY, api_page
from mllm3rec.serve.mcp_server import mcp_server
from mllm3rec.serve.service import Service, TooManyRequestsError, UnansweredError
from mllm3rec.serve.service_routes import asking_routes, problem, state_routes
from programs.runtime.errors import InputError


def http_app(service: Service, may_reload: bool) -> FastAPI:
    """The application.

    Args:
        may_reload: Whether `POST /reload` is there; it needs a key.
    """
    mcp = mcp_server(service)
    # Our own guard checks Host, Origin and key before.
    from mcp.server.transport_security import TransportSecuritySettings

    streamed = mcp.streamable_http_app(
        stateless_http=True,
        json_response=True,
        transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with mcp.session_manager.run():
            yield

    app = FastAPI(
        title="M-LLM3Rec",
        version=service.health().versions["mllm3rec"],
        description="Motivation-aware recommendations by one compiled program.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.router.routes.extend(streamed.routes)

    _answer_errors(app)
    app.include_router(asking_routes(service))
    app.include_router(state_routes(service, may_reload))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(api_page(app.openapi()), headers={"Content-Security-Policy": CONTENT_POLICY})

    return app


def _answer_errors(app: FastAPI) -> None:
    """Errors as one JSON object that says what was wrong and what to do."""

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, error: RequestValidationError) -> Response:
        # Without what was sent: it may be no text that can be sent back.
        first = error.errors()[0]
        field = ".".join(str(step) for step in first["loc"] if step != "body")
        return problem(422, f"{field + ': ' if field else ''}{first['msg']}; see /openapi.json")

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(InputError)
    async def unanswerable(request: Request, error: InputError) -> Response:
        return problem(400, str(error))

    @app.exception_handler(UnansweredError)
    async def unanswered(request: Request, error: UnansweredError) -> Response:
        if error.why == "refused":  # as it would be the next time
            return problem(503, str(error))
        return problem(503, f"{error}; try again later", {"Retry-After": "5"})

    @app.exception_handler(TooManyRequestsError)
    async def too_many(request: Request, error: TooManyRequestsError) -> Response:
        return problem(429, str(error), {"Retry-After": str(math.ceil(error.retry_after))})
