"""Routes of the HTTP interface: four that ask the program, and those that say or change its state."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from mllm3rec.serve.messages import (
    ExplainAnswer,
    ExplainRequest,
    Health,
    ProblemAnswer,
    ProfileAnswer,
    ProfileRequest,
    RecommendAnswer,
    RecommendRequest,
    ReloadAnswer,
    TraitsAnswer,
    TraitsRequest,
)
from mllm3rec.serve.service import Service
from mllm3rec.serve.service_metrics import CONTENT_TYPE
from programs.runtime.errors import InputError

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": ProblemAnswer, "description": "The request cannot be answered as it is"},
    422: {"model": ProblemAnswer, "description": "The request is malformed"},
    429: {"model": ProblemAnswer, "description": "The requests of a minute or a day are used up"},
}
_UNANSWERED: dict[int | str, dict[str, Any]] = {
    **_PROBLEMS,
    503: {"model": ProblemAnswer, "description": "The models did not answer"},
}


def problem(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """An error as one JSON object."""
    return JSONResponse({"error": message}, status, headers)


def asking_routes(service: Service) -> APIRouter:
    """Routes that ask the program."""
    router = APIRouter()

    @router.post("/recommend", responses=_PROBLEMS)
    async def recommend(request: RecommendRequest) -> RecommendAnswer:
        """The k best items of the catalogue that the user does not have yet."""
        return await service.recommend(request)

    @router.post("/profile", responses=_UNANSWERED)
    async def profile(request: ProfileRequest) -> ProfileAnswer:
        """The motivations of a user, with the purchases that each is based on."""
        return await service.profile(request)

    @router.post("/traits", responses=_UNANSWERED)
    async def traits(request: TraitsRequest) -> TraitsAnswer:
        """What an item does and why it is wanted, in phrases that would also fit other items."""
        return await service.traits(request)

    @router.post("/explain", responses=_UNANSWERED)
    async def explain(request: ExplainRequest) -> ExplainAnswer:
        """Why an item would be recommended to a user, checked by the judge."""
        return await service.explain(request)

    return router


def state_routes(service: Service, may_reload: bool) -> APIRouter:
    """Health and metrics, and with `may_reload` a reload."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> Health:
        """What answers, and since when; no model is asked."""
        return service.health()

    @router.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """Counters in Prometheus' text form."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    if may_reload:

        @router.post("/reload", responses={409: {"model": ProblemAnswer}}, response_model=ReloadAnswer)
        async def reload() -> ReloadAnswer | JSONResponse:
            """Read the artifact's folder again; what cannot be used is refused, and the old one stays."""
            try:
                changed = await asyncio.shield(service.pool.reload())
            except InputError as error:
                return problem(409, str(error))
            return ReloadAnswer(changed=changed, artifact=service.pool.current.artifact)

    return router
