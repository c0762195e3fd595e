"""Model Context Protocol server: the tools recommend, profile and explain, through the official library."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pydantic import ValidationError

from mllm3rec.serve.messages import (
    ExplainAnswer,
    ExplainRequest,
    FreeText,
    History,
    ItemId,
    ProfileAnswer,
    ProfileRequest,
    RecommendAnswer,
    RecommendRequest,
)
from mllm3rec.serve.service import Service, TooManyRequestsError, UnansweredError
from programs.runtime.errors import InputError, input_error

if TYPE_CHECKING:
    from mcp.server import MCPServer


def mcp_server(service: Service) -> MCPServer:
    """A server whose tools ask the service; answers and errors are those of HTTP."""
    from mcp.server import MCPServer

    server = MCPServer(
        "mllm3rec",
        version=service.health().versions["mllm3rec"],
        instructions="Recommends items of one catalogue by the motivations of a user, and says why.",
        log_level="WARNING",
    )

    @server.tool()
    async def recommend(
        user: str | None = None, history: History | None = None, k: int = 5, explain: bool = False
    ) -> RecommendAnswer:
        """Recommend k items to a user of the dataset, or to a new user with a history of item ids or free texts.

        `answered_by` says whether the program or, for the reason in `why`, the prior alone ranked them.
        """
        with _explained():
            return await service.recommend(RecommendRequest(user=user, history=history, k=k, explain=explain))

    @server.tool()
    async def profile(user: str | None = None, history: History | None = None) -> ProfileAnswer:
        """The motivations of a user, with the purchases that each is based on."""
        with _explained():
            return await service.profile(ProfileRequest(user=user, history=history))

    @server.tool()
    async def explain(
        user: str | None = None,
        history: History | None = None,
        item: ItemId | None = None,
        text: FreeText | None = None,
    ) -> ExplainAnswer:
        """Why an item, by its id or a free text, would be recommended to a user; the reason is checked by the judge."""
        with _explained():
            return await service.explain(ExplainRequest(user=user, history=history, item=item, text=text))

    return server


@contextmanager
def _explained() -> Iterator[None]:
    """Errors that a caller can do something about, in words; the library hides all others."""
    from mcp.server.mcpserver.exceptions import ToolError

    try:
        yield
    except ValidationError as error:
        raise ToolError(str(input_error("arguments", error))) from None
    except (InputError, TooManyRequestsError, UnansweredError) as error:
        raise ToolError(str(error)) from None
