"""A stage in several processes: each takes batches from one queue, under one budget, with its part of the limits.

Queues carry Arrow's own bytes. Ctrl-C and SIGTERM reach every process; what is in flight there ends, and what was
answered is in the caches. A worker whose parent is gone ends by itself.
"""

from __future__ import annotations

import multiprocessing
import queue
import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import Any

import pyarrow as pa

from mllm3rec.stages import failures
from mllm3rec.stages.settings import StageSettings
from mllm3rec.stages.shared_budget import SharedLedger, SharedSums
from mllm3rec.stages.stage import Stage
from programs.lm.ledger import Budget
from programs.runtime.errors import InputError
from programs.runtime.events import Event, Note, OnEvent
from programs.runtime.interrupts import GRACE

_LOOK = 0.2
_BATCHES = 8
"""Batches that wait for each worker."""


def run_in_processes(
    settings: StageSettings, batches: Iterable[pa.RecordBatch], processes: int, on_event: OnEvent
) -> Iterator[pa.RecordBatch]:
    """`Stage(settings)(batches)` in several processes; batches come in the order in which they are ready.

    Raises:
        BudgetExceededError: if the budget is spent, when all have ended.
        InputError: if a model cannot be used, or a process was killed.
    """
    part = settings.model_copy(update={"budget": settings.budget.to_send(), "workers": processes})
    sums = None if part.budget == Budget() else SharedSums()
    context = multiprocessing.get_context("spawn")
    tasks: Any = context.Queue(_BATCHES * processes)
    results: Any = context.Queue()
    workers = [
        context.Process(target=_work, args=(part.model_dump_json(), sums, tasks, results), daemon=True)
        for _ in range(processes)
    ]
    for worker in workers:
        worker.start()
    over = threading.Event()
    feeder = threading.Thread(target=_feed, args=(batches, tasks, processes, over), daemon=True)
    feeder.start()
    try:
        yield from _collected(workers, results, on_event)
    finally:
        over.set()
        _end(workers)
        for line in (tasks, results):
            line.cancel_join_thread()
            line.close()


def _collected(workers: list[Any], results: Any, on_event: OnEvent) -> Iterator[pa.RecordBatch]:
    running = len(workers)
    failure: BaseException | None = None
    while running:
        try:
            kind, content = results.get(timeout=_LOOK)
        except queue.Empty:
            if any(worker.exitcode not in (None, 0) for worker in workers):
                raise InputError(
                    "a worker process was killed, perhaps for want of memory; the same command goes on from there, "
                    "also with fewer --processes"
                ) from None
            continue
        if kind == "rows":
            yield _batch(content)
        elif kind == "note":
            on_event(Note(content))
        else:
            running -= 1
            if kind != "end":
                failure = failure or failures.failure(kind, content)
                if kind != failures.SPENT:
                    raise failure
    if failure is not None:
        raise failure


def _feed(batches: Iterable[pa.RecordBatch], tasks: Any, processes: int, over: threading.Event) -> None:
    for content in chain(map(_bytes, batches), [None] * processes):
        while not over.is_set():
            with suppress(queue.Full):
                tasks.put(content, timeout=_LOOK)
                break


def _end(workers: list[Any]) -> None:
    for worker in workers:
        if worker.is_alive():
            worker.terminate()  # SIGTERM: the stage ends what is in flight
    for worker in workers:
        worker.join(2 * GRACE)
        if worker.is_alive():
            worker.kill()
            worker.join()


def _work(settings: str, sums: SharedSums | None, tasks: Any, results: Any) -> None:
    """One worker process."""
    part = StageSettings.model_validate_json(settings)
    ledger = None if sums is None else SharedLedger(part.ledger, part.budget, sums)
    # Ctrl-C reaches all processes of a terminal: while a stage works it is noted there, and else the parent ends us.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def tell(event: Event) -> None:
        if isinstance(event, Note):
            results.put(("note", event.text))

    ended = [("end", "")]
    try:
        with (
            failures.reported(lambda kind, message: ended.insert(0, (kind, message))),
            Stage(part, tell, ledger) as stage,
        ):
            for batch in stage(_taken(tasks)):
                results.put(("rows", _bytes(batch)))
    except KeyboardInterrupt:
        pass
    results.put(ended[0])


def _taken(tasks: Any) -> Iterator[pa.RecordBatch]:
    parent = multiprocessing.parent_process()
    while parent is None or parent.is_alive():
        try:
            content = tasks.get(timeout=_LOOK)
        except queue.Empty:
            continue
        if content is None:
            return
        yield _batch(content)


def _bytes(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _batch(content: bytes) -> pa.RecordBatch:
    with pa.ipc.open_stream(content) as reader:
        return reader.read_next_batch()
