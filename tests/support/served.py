"""Artifacts without a compile, and a service in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from evaluate.data.load import load_dataset
from evaluate.stats.intervals import Difference, Estimate
from mllm3rec.serve.guard import LOOPBACK_NAMES, Guard
from mllm3rec.serve.http_app import http_app
from mllm3rec.serve.running import PRIOR, ServiceSettings, running_service
from mllm3rec.serve.service import Service
from optimize.artifact import ArtifactManifest, CompileData, save_artifact
from optimize.holdout import HoldoutVerdict
from optimize.objective import ObjectiveWeights
from programs.gate import Gate
from programs.lm.backends import Backends
from programs.lm.ledger import Ledger
from programs.lm.model_options import ModelOptions
from programs.prior.encoders import HashingEncoder
from programs.prior.scorers import Popularity
from programs.program import PROGRAMS, Parts
from programs.trait_store import TraitStore
from signatures.schema import CONSUMER


def freeze(folder: Path, model: str, weight: float = 0.3, family: str = "listwise", gate: Gate | None = None) -> str:
    """An artifact of an uncompiled program, and its hash; another weight makes another artifact."""
    roles = ModelOptions("local", model).roles()
    parts = Parts(Backends(roles, Ledger()), {}, Popularity({}), HashingEncoder(), TraitStore())
    score = {"score": Estimate(mean=0.0, low=0.0, high=0.0, n=1)}
    difference = {"score": Difference(mean=0.0, low=0.0, high=0.0, n=1, unpaired=0)}
    data = CompileData(
        dataset="none", dataset_sha256="", cases_sha256="", target="last", negatives=0, searched=(), held_out=()
    )
    manifest = ArtifactManifest(
        family=family,
        roles=roles,
        weight=weight,
        gate=gate,
        motivations=CONSUMER,
        optimizer="none",
        weights=ObjectiveWeights(),
        similarity="lexical",
        interactions=0,
        data=data,
        verdict=HoldoutVerdict(judgement="not better", before=score, after=score, difference=difference),
    )
    return save_artifact(folder, PROGRAMS[family](parts), manifest).sha256


@dataclass
class Served:
    """A service and a client that reaches it as over HTTP."""

    service: Service
    client: httpx.AsyncClient

    async def ask(self, path: str, **body: Any) -> dict[str, Any]:
        """The answer to a request that must succeed."""
        answer = await self.client.post(path, json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


@asynccontextmanager
async def serving(
    name: str | Path, model: str = "", *, key: str | None = None, body_bytes: int = 262_144, **settings: Any
) -> AsyncIterator[Served]:
    """A service on the demo store."""
    models = ModelOptions(model=model or None) if name != PRIOR else ModelOptions()
    given = ServiceSettings(str(name), models, **settings)
    async with running_service(given, load_dataset("demo")) as service:
        app = http_app(service, may_reload=key is not None)
        guard = Guard(app, service.metrics, LOOPBACK_NAMES, key, body_bytes, {"/recommend"})
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        transport = httpx.ASGITransport(guard)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
            yield Served(service, client)
