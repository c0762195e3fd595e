"""Running the service: build the program, bind, answer, reload on SIGHUP, and stop without dropping a request."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import signal
import socket
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from evaluate.data.dataset import Dataset
from evaluate.ranker_choice import named_models, options_read_by, refuse_ignored
from mllm3rec.api.program import choice_of
from mllm3rec.serve.connections import ACCEPTED, impatient_protocol, most_connections
from mllm3rec.serve.guard import ANY_HOST, LOOPBACK_NAMES, Guard
from mllm3rec.serve.limits import ServiceLimits
from mllm3rec.serve.messages import Health
from mllm3rec.serve.program_loop import ProgramLoop
from mllm3rec.serve.program_pool import ProgramPool, artifact_fingerprint
from mllm3rec.serve.renewing_ledger import RenewingLedger
from mllm3rec.serve.served_program import ServedProgram
from mllm3rec.serve.service import Service
from mllm3rec.serve.service_metrics import ServiceMetrics
from optimize.artifact import is_artifact
from programs.lm.model_options import ModelOptions
from programs.program import DEFAULT_WEIGHT, Fusion
from programs.runtime.environment import environment, variable
from programs.runtime.errors import InputError, one_line
from programs.runtime.events import Note, OnEvent, ignore
from programs.runtime.interrupts import end_despite_threads
from signatures.schema import MotivationSchema

PRIOR = "prior"
_LEAST_KEY = 16
_BACKLOG = 2048
_AFTER_DEADLINE = 5.0
"""Seconds that requests get beyond their deadline when the service stops."""


@dataclass(frozen=True)
class ServiceSettings:
    """What is served, and how.

    Attributes:
        name: Folder of an artifact, name of a program, or `prior` for no models at all.
        models: Models that replace those of the artifact, or of a program by name.
        candidates: Items that the prior retrieves for each user.
        ledger: File that records every call; calls of the last day count against the budget.
        host, port: Where it listens; port 0 takes a free one.
        allow_hosts: Further names under which it may be called; `*` for any.
    """

    name: str
    models: ModelOptions = field(default_factory=ModelOptions)
    schema: MotivationSchema | None = None
    weight: float | None = None
    candidates: int = 15
    limits: ServiceLimits = field(default_factory=ServiceLimits)
    ledger: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    allow_hosts: Collection[str] = ()

    @property
    def key(self) -> str | None:
        """The bearer key, from the environment.

        Raises:
            InputError: if it is too short to be a secret.
        """
        secret = environment().bearer
        if secret is None:
            return None
        key = secret.get_secret_value()
        if len(key) < _LEAST_KEY or not key.isascii() or key != key.strip():
            raise InputError(
                f"{variable('bearer')}: give at least {_LEAST_KEY} ASCII characters without spaces around them"
            )
        return key

    @property
    def hosts(self) -> frozenset[str]:
        """Names under which the service may be called.

        Raises:
            InputError: if it would listen on another machine's side without a key, or by names nobody said.
        """
        if _is_loopback(self.host):
            return LOOPBACK_NAMES | {name.lower() for name in self.allow_hosts}
        if self.key is None:
            raise InputError(
                f"--host {self.host}: without a key only this machine may call the service; set "
                f"{variable('bearer')} to a secret that callers send as `Authorization: Bearer`"
            )
        if self.host in ("0.0.0.0", "::") and not self.allow_hosts:  # noqa: S104 - what the user asked for
            raise InputError(
                f"--host {self.host}: say by which name callers reach it, --allow-host NAME, or {ANY_HOST} for any"
            )
        return LOOPBACK_NAMES | {self.host.lower(), *(name.lower() for name in self.allow_hosts)}


def _is_loopback(host: str) -> bool:
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@asynccontextmanager
async def running_service(
    settings: ServiceSettings, dataset: Dataset, on_event: OnEvent = ignore
) -> AsyncIterator[Service]:
    """The service with its engine, closed at the end of the block; new artifacts are taken as they come.

    Raises:
        InputError: if the program cannot be used.
    """
    ledger, metrics = RenewingLedger(settings.ledger, settings.limits), ServiceMetrics()
    watching: asyncio.Task[None] | None = None
    folder = Path(settings.name)
    seen = await asyncio.to_thread(artifact_fingerprint, folder)
    engine = ProgramLoop()
    build = partial(_built, settings, dataset, engine, ledger, on_event)
    try:
        pool = ProgramPool(build, await asyncio.to_thread(build), metrics.reloaded)
        if is_artifact(folder):
            watching = asyncio.create_task(pool.watch(folder, seen))
        try:
            yield Service(pool, engine, settings.limits, ledger, metrics)
        finally:
            ledger.stop("the service stops")
            await pool.current.close()
    finally:
        if watching is not None:
            watching.cancel()
        engine.close()
        ledger.close()


def _built(
    settings: ServiceSettings, dataset: Dataset, engine: ProgramLoop, ledger: RenewingLedger, on_event: OnEvent
) -> ServedProgram:
    asks = settings.name != PRIOR
    # Without models any program has the prior that is wanted.
    name = settings.name if asks else "listwise"
    weight = DEFAULT_WEIGHT if settings.weight is None else settings.weight
    choice = choice_of(name, settings.models, Fusion(weight=weight), settings.schema)
    read = choice.options_read if asks else options_read_by(PRIOR)
    refuse_ignored([read], weight=settings.weight, schema=settings.schema, **named_models(vars(settings.models)))
    if not choice.asks_models:
        raise InputError(f"{name!r} asks no language model: serve an artifact, a program, or {PRIOR!r}")
    return ServedProgram(choice, dataset, asks, settings.candidates, engine, ledger, on_event)


def serve_http(
    settings: ServiceSettings,
    dataset: Dataset,
    on_event: OnEvent = ignore,
    on_ready: Callable[[str, Health], None] = lambda address, health: None,
) -> None:
    """Answer HTTP until SIGTERM or Ctrl-C; requests under way are answered first.

    Ends the process if a thread still waits for a server some seconds later.

    Args:
        on_ready: Told the address and what answers there, when requests can come.

    Raises:
        InputError: if the program, the address or the key cannot be used.
    """
    hosts, key = settings.hosts, settings.key
    with _listening(settings.host, settings.port) as at:
        _run(_serve_http(settings, dataset, at, hosts, key, on_event, on_ready))


def _run(serving: Coroutine[Any, Any, None]) -> None:
    """Run the service to its end; ends the process with code 0 if threads still wait for a server then."""
    threads = ThreadPoolExecutor(thread_name_prefix="build")
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        loop.set_default_executor(threads)
        try:
            runner.run(serving)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
            # The runner waits five minutes for threads of the loop's executor, so it gets one without threads.
            loop.set_default_executor(ThreadPoolExecutor(1))
        end_despite_threads(0)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise InputError(
            f"cannot listen at {host}:{port} ({one_line(error)}): choose another --host or --port"
        ) from error


async def _serve_http(
    settings: ServiceSettings,
    dataset: Dataset,
    at: socket.socket,
    hosts: frozenset[str],
    key: str | None,
    on_event: OnEvent,
    on_ready: Callable[[str, Health], None],
) -> None:
    import uvicorn

    from mllm3rec.serve.http_app import http_app

    class Server(uvicorn.Server):
        """One whose signals are ours: it would raise them again at its end."""

        def capture_signals(self) -> Any:
            return nullcontext()

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            at.listen(_BACKLOG)  # asyncio accepts as many at a time as it lets wait

    async with running_service(settings, dataset, on_event) as service:
        app = http_app(service, may_reload=key is not None)
        paths = {"/", "/openapi.json", "/mcp", *app.openapi()["paths"]}
        grace = round(settings.limits.deadline + _AFTER_DEADLINE)
        limits, most = settings.limits, most_connections()
        guard = Guard(app, service.metrics, hosts, key, limits.body_bytes, paths, limits.receive_seconds)
        server = Server(
            uvicorn.Config(
                guard,
                http=impatient_protocol(limits.receive_seconds, most),
                ws="none",
                log_level="warning",
                access_log=False,
                server_header=False,
                backlog=ACCEPTED,
                limit_concurrency=most,
                timeout_graceful_shutdown=grace,
            )
        )
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, setattr, server, "should_exit", True)
        if hasattr(signal, "SIGHUP"):
            loop.add_signal_handler(signal.SIGHUP, _reload, service)
        name, port = at.getsockname()[:2]
        shown = f"[{name}]" if ":" in name else name
        on_event(Note(f"serving {service.health().program} at http://{shown}:{port} (Ctrl-C stops it)"))
        on_ready(f"http://{shown}:{port}/", service.health())
        await server.serve(sockets=[at])
        on_event(Note(f"stopped; requests under way had up to {grace} s to be answered"))


def _reload(service: Service) -> None:
    async def quietly() -> None:
        with suppress(InputError):  # said in the log
            await service.pool.reload()

    task = asyncio.get_running_loop().create_task(quietly())
    task.add_done_callback(lambda done: done.exception())


def serve_mcp(settings: ServiceSettings, dataset: Dataset, on_event: OnEvent = ignore) -> None:
    """Answer MCP on standard input and output until the client closes them.

    Raises:
        InputError: if the program cannot be used.
    """
    _run(_serve_mcp(settings, dataset, on_event))


async def _serve_mcp(settings: ServiceSettings, dataset: Dataset, on_event: OnEvent) -> None:
    from mllm3rec.serve.mcp_server import mcp_server

    async with running_service(settings, dataset, on_event) as service:
        await mcp_server(service).run_stdio_async()


def log_to_stderr() -> None:
    """Show warnings of the service and its libraries; none of them holds keys or prompts."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
