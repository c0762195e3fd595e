"""A stage on a Ray cluster: batches go through an actor pool of Ray Data; a failed row is a row, never a failed job.

The job's folder must be one that all machines see, as must be the dataset, an artifact, and files that settings name.
Input batches are Parquet files there, and each worker's ledger is. Keys of models are in the environment of the
machines; they are in no task, no log and no file.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mllm3rec.stages import columns, failures
from mllm3rec.stages.leases import Coordinator, LeasedLedger
from mllm3rec.stages.settings import StageSettings
from mllm3rec.stages.stage import Stage
from mllm3rec.stages.worker_ledgers import new_ledger_path
from programs.runtime.environment import environment, variable
from programs.runtime.errors import InputError, one_line, require_extra
from programs.runtime.events import Event, Note, OnEvent
from programs.runtime.interrupts import GRACE, interruptible_wait

THIS_MACHINE = "local"
"""In place of an address: a cluster of this machine alone, for this job."""

_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}
_OF_THIS_MACHINE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # listens on 127.0.0.1, where else it would on all addresses
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}
"""Settings of Ray, unless the user has set them."""

_STORE_BYTES = 256 << 20
"""Object store of a local cluster: it holds the batches that are under way."""

_ROWS = 1024
"""Most rows of a task: enough that the calls in flight are few beside them."""

_AT_ONCE = 32
"""Rows that come back together if the job ends early."""

_SENT_AS_THEY_ARE = ("encoder", "limits", "prices", "data", "fresh")
"""Settings of the environment that decide what rows are, and limits; the cache is each machine's own."""

_FILE = "file"
"""Column with the input files."""

_ENDED: Any = object()


def run_on_cluster(
    settings: StageSettings,
    batches: Iterable[pa.RecordBatch],
    rows: int,
    folder: Path,
    workers: int,
    address: str,
    on_event: OnEvent,
) -> Iterator[pa.RecordBatch]:
    """`Stage(settings)(batches)` by the actors of a cluster; batches come in the order in which they are ready.

    On Ctrl-C, calls in flight get `GRACE` seconds to end, and the rows that are ready come before the interruption.

    Args:
        rows: Number of rows in `batches`.
        folder: Of the job, seen by all machines.
        workers: Number of actors; each has its part of the limits, and leases slices of the budget.
        address: Of the cluster, as `ray start` prints it; `local` for one of this machine alone.

    Raises:
        BudgetExceededError: if the budget is spent.
        InputError: if a model cannot be used, or the cluster fails.
        BackendDownError: if a backend does not answer.
        MissingExtraError: if Ray is not installed.
    """
    size = max(1, min(_ROWS, -(-rows // (4 * workers))))
    with session(address, workers) as ray, _input(batches, size, folder / "input") as files:
        coordinator = _coordinator(ray, settings, workers)
        tables = _read(_dataset(ray, settings, folder, files, workers, coordinator))
        try:
            with interruptible_wait() as next_in:
                yield from _made(tables, next_in, lambda: _tell_notes(ray, coordinator, on_event))
        except KeyboardInterrupt:
            ray.get(coordinator.stop.remote())
            until = time.monotonic() + 2 * GRACE
            with suppress(queue.Empty):
                yield from _made(
                    tables, lambda line: line.get(timeout=max(0.0, until - time.monotonic())), lambda: None
                )
            raise
        except ray.exceptions.RayError as error:
            raise InputError(
                f"the cluster failed: {one_line(error)}; everything done so far is kept: the same command goes on"
            ) from error
        finally:
            with suppress(ray.exceptions.RayError):
                ray.get(coordinator.stop.remote())
        if failed := ray.get(coordinator.failure.remote()):
            raise failures.failure(*failed)


def _made(
    tables: SimpleQueue[Any], next_in: Callable[[SimpleQueue[Any]], Any], meanwhile: Callable[[], None]
) -> Iterator[pa.RecordBatch]:
    while (table := next_in(tables)) is not _ENDED:
        if isinstance(table, BaseException):
            raise table
        meanwhile()
        yield from table.to_batches()


def _tell_notes(ray: Any, coordinator: Any, on_event: OnEvent) -> None:
    for text in ray.get(coordinator.new_notes.remote()):
        on_event(Note(text))


@contextmanager
def session(address: str, workers: int) -> Iterator[Any]:
    """A connection to the cluster, as Ray's module; one that the caller has opened is used, and left open.

    Raises:
        InputError: if there is no cluster at the address.
        MissingExtraError: if Ray is not installed.
    """
    if address.startswith("ray://"):
        raise InputError(
            f"--cluster {address}: run this command on one of the cluster's machines, with its address (HOST:6379)"
        )
    for name, value in (_QUIET | (_OF_THIS_MACHINE if address == THIS_MACHINE else {})).items():
        os.environ.setdefault(name, value)  # Ray reads them when it is imported
    ray: Any = require_extra("ray", "ray", "a job on a cluster")
    require_extra("ray.data", "ray", "a job on a cluster")
    if ray.is_initialized():
        yield ray
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address == THIS_MACHINE:
            ray.init(
                num_cpus=workers + 1,
                include_dashboard=False,
                object_store_memory=_STORE_BYTES,
                _node_ip_address="127.0.0.1",
                **quiet,
            )
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise InputError(f"--cluster {address}: {one_line(error)}") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)  # Ray replaces them
    try:
        yield ray
    finally:
        ray.shutdown()


@contextmanager
def _input(batches: Iterable[pa.RecordBatch], size: int, folder: Path) -> Iterator[list[str]]:
    """The rows as Parquet files of `size` rows, removed at the end of the block."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    files: list[str] = []
    waiting: list[pa.RecordBatch] = []

    def write(table: pa.Table) -> None:
        for start in range(0, table.num_rows, size):
            path = folder / f"{len(files):08d}.parquet"
            pq.write_table(table.slice(start, size), path)
            files.append(str(path.resolve()))

    for batch in batches:
        waiting.append(batch)
        if sum(one.num_rows for one in waiting) >= size:
            table, waiting = pa.Table.from_batches(waiting), []
            whole = table.num_rows // size * size
            write(table.slice(0, whole))
            waiting = table.slice(whole).to_batches()
    if waiting:
        write(pa.Table.from_batches(waiting))
    try:
        yield files
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _coordinator(ray: Any, settings: StageSettings, workers: int) -> Any:
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=True
    )
    actor = ray.remote(num_cpus=0, scheduling_strategy=here, max_concurrency=10_000)(Coordinator)
    return actor.remote(settings.budget, workers)


def _dataset(ray: Any, settings: StageSettings, folder: Path, files: list[str], workers: int, coordinator: Any) -> Any:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    part = _anywhere(settings).model_copy(update={"workers": workers, "ledger": None})
    given = (part.model_dump_json(), part.identity(), _shared_environment(), str(folder.resolve()), coordinator)
    return ray.data.from_items([{_FILE: path} for path in files], override_num_blocks=len(files)).map_batches(
        Worker,
        fn_constructor_args=given,
        batch_format="pyarrow",
        batch_size=None,
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=1,
    )


def _read(dataset: Any) -> SimpleQueue[Any]:
    """The tables of a dataset as they get ready, at last `_ENDED`; read in a thread, so that Ctrl-C finds no lock."""
    tables: SimpleQueue[Any] = SimpleQueue()

    def read() -> None:
        try:
            for table in dataset.iter_batches(batch_size=None, batch_format="pyarrow"):
                tables.put(table)
        except BaseException as error:
            tables.put(error)
        tables.put(_ENDED)

    threading.Thread(target=read, daemon=True).start()
    return tables


def _anywhere(settings: StageSettings) -> StageSettings:
    """The same settings with whole paths: workers have other working folders."""
    whole: dict[str, Any] = {
        name: str(Path(value).resolve())
        for name in ("program", "dataset")
        if (value := getattr(settings, name)) is not None and Path(value).is_dir()
    }
    whole |= {
        name: value.resolve() for name in ("schema_file", "cache") if (value := getattr(settings, name)) is not None
    }
    return settings.model_copy(update=whole)


def _shared_environment() -> dict[str, str]:
    values = {name: getattr(environment(), name) for name in _SENT_AS_THEY_ARE}
    return {
        variable(name): str(value.resolve() if isinstance(value, Path) else value)
        for name, value in values.items()
        if value is not None
    }


class Worker:
    """An actor: a stage that is built with the first batch.

    Args:
        settings: Of the stage, as JSON.
        identity: Of the settings, where the job was started.
        shared: Environment variables of the driver that are no secrets.
        folder: Of the job.
        coordinator: The actor `Coordinator`.
    """

    def __init__(self, settings: str, identity: str, shared: dict[str, str], folder: str, coordinator: Any) -> None:
        import ray

        os.environ.update(shared)
        self._settings = StageSettings.model_validate_json(settings)
        self._identity = identity
        self._folder = Path(folder)
        self._coordinator = coordinator
        self._get = ray.get
        self._stage: Stage | None = None
        self._ledger = LeasedLedger(
            new_ledger_path(self._folder),
            self._settings.budget,
            lambda calls, usd: ray.get(coordinator.lease.remote(calls, usd)),
        )
        threading.Thread(target=self._end_with_job, daemon=True).start()

    def __call__(self, files: pa.Table) -> pa.Table:
        """The rows that were made of those in the files: all of them, unless the job ends early."""
        made: list[pa.RecordBatch] = []
        if not self._ledger.stopped:
            with failures.reported(self._report):
                stage = self._begun()
                for path in files[_FILE].to_pylist():
                    for batch in stage(pq.read_table(path).to_batches(max_chunksize=_AT_ONCE)):
                        made.append(batch)  # one by one: those before an error are kept
        return pa.Table.from_batches(made, columns.OUTPUTS[self._settings.task])

    def _begun(self) -> Stage:
        if self._stage is None:
            where = f"worker on {socket.gethostname()}"
            if not self._folder.is_dir():
                raise InputError(f"{self._folder}: the {where} does not see it; put --out where all machines see it")
            if self._settings.identity() != self._identity:
                raise InputError(
                    f"{self._settings.program}: the {where} finds another program or other models than this machine; "
                    "install the same version and put artifacts where all machines see them"
                )
            self._stage = Stage(self._settings, self._note, self._ledger)
        return self._stage

    def _report(self, kind: str, message: str) -> None:
        self._get(self._coordinator.report.remote(kind, message))

    def _note(self, event: Event) -> None:
        if isinstance(event, Note):
            self._get(self._coordinator.note.remote(event.text))

    def _end_with_job(self) -> None:
        """Stop when the job is over, or the driver and its coordinator are gone."""
        with suppress(Exception):
            self._get(self._coordinator.over.remote())
        self._ledger.stop("interrupted")
