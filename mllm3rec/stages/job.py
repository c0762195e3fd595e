"""A job: a stage over all rows of a source, into one Parquet file; resumable at any moment, with a forecast."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic_core import to_json

from mllm3rec.stages import columns
from mllm3rec.stages.batches import BatchStage
from mllm3rec.stages.cluster import run_on_cluster
from mllm3rec.stages.forecast import Forecast, Sample, drawn
from mllm3rec.stages.parts import AGAIN, OutputParts, inputs_file, opened
from mllm3rec.stages.settings import StageSettings
from mllm3rec.stages.stage import Stage
from mllm3rec.stages.worker_ledgers import merge_ledgers
from mllm3rec.stages.workers import run_in_processes
from programs.batch.charges import record_earlier_batches
from programs.batch.via import Via
from programs.lm.ledger import Budget, Ledger
from programs.runtime.errors import InputError
from programs.runtime.events import Note, OnEvent, Progress, ignore
from signatures.rows import Usage, add_usd, total_usage

BATCH_ROWS = 32
"""Rows of a batch."""

_DIGITS = 16
"""Of the hash of an input row: it is compared with one other hash alone."""


@dataclass(frozen=True)
class RowSource:
    """The rows that a stage reads.

    Attributes:
        ids: Of all rows, in order.
        row_of: Makes the row of an id.
        schema: Its columns.
        what: Word for the rows, in progress.
        data: What all output rows are made from, where the input rows are no more than ids; then another value is
            another job. None where the input rows hold all that is read: then those that changed are made again.
    """

    ids: Sequence[str]
    row_of: Callable[[str], dict[str, Any]]
    schema: pa.Schema
    what: str
    data: Mapping[str, Any] | None = None

    def digest(self, key: str) -> str | None:
        """Hash of a row; None where `data` says what it stands for."""
        if self.data is not None:
            return None
        return hashlib.sha256(to_json(self.row_of(key), fallback=str)).hexdigest()[:_DIGITS]

    def identity(self, settings: StageSettings) -> str:
        """Hash of what decides all rows: two jobs with the same one may share their output."""
        if self.data is None:
            return settings.identity()
        facts = json.dumps([settings.identity(), self.data], sort_keys=True)
        return hashlib.sha256(facts.encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """How a job ended.

    Attributes:
        out: The Parquet file; it is there if the job is complete, or only rows of failed calls are missing.
        rows: Rows by status, those of earlier runs included.
        usage: What this run sent.
        forecast: Of the rows that this run had to make; None if there were fewer than a sample.
        written: Whether `out` was written; not after a dry run.
    """

    out: Path
    rows: Mapping[str, int]
    usage: Usage
    forecast: Forecast | None
    written: bool

    @property
    def complete(self) -> bool:
        """Whether every row is made and no calls failed."""
        return self.written and not self.rows.get(columns.FAILED, 0)


def run_job(
    settings: StageSettings,
    source: RowSource,
    out: Path,
    budget: Budget,
    *,
    processes: int = 1,
    cluster: str | None = None,
    dry_run: bool = False,
    via: Via = "calls",
    on_event: OnEvent = ignore,
) -> Job:
    """Make the row of every id of the source that has none yet.

    Rows are kept in a folder beside `out` until all are there; an `out` of earlier runs stays until then. What was made
    before is not made again; answers that a killed process has got are in the response cache.

    Args:
        settings: Of the stage; its ledger is by default a file beside `out`.
        budget: For all runs of this job: calls in the ledger count.
        processes: Most processes. They share the budget, and each has its part of the limits: where a limit is smaller
            than their number, fewer work.
        dry_run: Whether to make a sample of the rows only, and forecast the others.
        via: See `mllm3rec.evaluate`. By batches all questions are answered first; what they leave open is then asked
            by itself.
        cluster: Address of a Ray cluster whose actors are the processes, or `local`; None for processes of this
            machine without Ray.

    Raises:
        BudgetExceededError: if the budget is spent. The rows that were made are kept.
        InputError: if a model cannot be used, or `out` was made with other settings.
        BackendDownError: if a backend does not answer.
    """
    if dry_run and via != "calls":
        raise InputError("a dry run sends a few calls, and no batch: leave out one of the two")
    if not out.name:
        raise InputError(f"{out}: is a folder; give the name of a file to write, such as {out / 'rows.parquet'}")
    ledger_path = settings.ledger or out.with_name(f"{out.name}.ledger.jsonl")
    identity = source.identity(settings)
    with opened(out, columns.OUTPUTS[settings.task], identity, settings.identity()) as parts:
        merge_ledgers(parts.folder, ledger_path)
        if via == "calls":
            with closing(Ledger(ledger_path)) as ledger:
                record_earlier_batches(ledger)
        left = _rows_left(settings, source, parts, on_event)
        settings = settings.model_copy(update={"ledger": ledger_path, "budget": _left(ledger_path, budget)})
        asked = Usage()
        if via != "calls" and left:
            with BatchStage(settings, via, on_event) as batches:
                batches.ask(lambda: (row for batch in _batches(source, left) for row in batch.to_pylist()))
                asked = batches.paid
            settings = settings.model_copy(update={"budget": _left(ledger_path, budget)})
        progress = _Progress(source, len(source.ids) - len(left), asked, on_event)
        rows = _batches(source, left)
        sample, forecast = Sample(), None
        if some := drawn(left, dry_run):
            sample, forecast = _sampled(settings, source, some, len(left), parts, progress)
            on_event(Note(f"forecast for {forecast}"))
            rows = _batches(source, (key for key in left if key not in sample.rows))
            settings = settings.model_copy(update={"budget": _left(ledger_path, budget)})
        if dry_run:
            return Job(out, parts.counts, progress.total, forecast, written=False)
        if left:
            processes = _within_limits(processes, settings, on_event)
        workers = _Workers(processes, cluster, parts.folder)
        made = workers.made(settings, rows, len(left), on_event) if left else iter(())
        # The sample is kept already, for the next run if this one ends early; the later row of an id counts.
        for batch in sample.in_place(left, progress.counted(made)):
            progress.keep(batch, parts)
        parts.join()
        return Job(out, parts.counts, progress.total, forecast, written=True)


@dataclass(frozen=True)
class _Workers:
    """Who makes the rows: this process, several of this machine, or the actors of a cluster.

    Attributes:
        folder: Of the job's parts; workers of a cluster keep their ledgers in it.
    """

    processes: int
    cluster: str | None
    folder: Path

    def made(
        self, settings: StageSettings, rows: Iterable[pa.RecordBatch], left: int, on_event: OnEvent
    ) -> Iterator[pa.RecordBatch]:
        """The output of all rows, in batches."""
        if self.cluster is not None:
            assert settings.ledger is not None  # noqa: S101 - set for every job
            try:
                yield from run_on_cluster(settings, rows, left, self.folder, self.processes, self.cluster, on_event)
            finally:
                merge_ledgers(self.folder, settings.ledger)
        elif self.processes > 1:
            yield from run_in_processes(settings, rows, self.processes, on_event)
        else:
            with Stage(settings, on_event) as stage:
                yield from stage(rows)


def _within_limits(processes: int, settings: StageSettings, on_event: OnEvent) -> int:
    """The number of processes, or fewer if the limits of the models cannot be divided among so many."""
    most = settings.most_workers()
    if most is None or processes <= most:
        return processes
    on_event(Note(f"{most} of {processes} processes work: the limits of the models are for all of them together"))
    return most


def _rows_left(settings: StageSettings, source: RowSource, parts: OutputParts, on_event: OnEvent) -> list[str]:
    """Ids of the rows to make: those that are missing, those to be made again, and those whose input has changed.

    Rows of ids that the source no longer has are left out of the output.
    """
    others = parts.keep_only(source.ids)
    if others:
        on_event(
            Note(f"{others:,} rows of {parts.out} are of {source.what} that are not in this input: they are left out")
        )
    again = AGAIN if settings.retry_unparsable else {columns.FAILED}
    done = parts.done(again)
    left: list[str] = []
    changed = unknown = 0
    for key in source.ids:
        if key not in done:
            left.append(key)
        elif (digest := source.digest(key)) is not None:
            unknown += key not in parts.inputs
            if parts.inputs.setdefault(key, digest) != digest:
                left.append(key)
                changed += 1
    if changed:
        on_event(Note(f"{changed:,} {source.what} have changed since their rows were made: they are made again"))
    if unknown:
        on_event(
            Note(
                f"warning: {parts.out}: it is not known what the rows of {unknown:,} {source.what} were made from: an "
                f"older version made them, or {inputs_file(parts.out).name} is missing; they count as unchanged: "
                "choose another --out to make them anew"
            )
        )
    if parts.is_older:
        on_event(
            Note(
                f"warning: {parts.out}: an older version began it, and did not record dataset, encoder and prior; they "
                "count as the same: choose another --out if they are not"
            )
        )
    return left


def _left(path: Path, budget: Budget) -> Budget:
    ledger = Ledger(path, budget)
    ledger.close()
    return ledger.left()


def _batches(source: RowSource, ids: Iterable[str]) -> Iterable[pa.RecordBatch]:
    return columns.batches(map(source.row_of, ids), source.schema, BATCH_ROWS)


def _sampled(
    settings: StageSettings, source: RowSource, ids: Sequence[str], left: int, parts: OutputParts, progress: _Progress
) -> tuple[Sample, Forecast]:
    """Make some rows first, and say what the others will take.

    Args:
        ids: Rows that may be made.
        left: Number of all rows that are to be made.
    """
    sample = Sample()
    with Stage(settings, progress.on_event) as stage:

        def make(some: list[str]) -> Iterator[pa.RecordBatch]:
            for batch in progress.counted(stage(_batches(source, some))):
                progress.keep(batch, parts)
                yield batch

        stage.prepare()
        sample.take(ids, make)
        return sample, sample.forecast(left - len(sample.rows), progress.usage, stage.slots)


class _Progress:
    """Rows and costs so far.

    Args:
        done: Rows that earlier runs have made.
        asked: What was paid before the first row: the rows find these answers in the response cache.

    Attributes:
        usage: Of the rows that this run has made.
    """

    def __init__(self, source: RowSource, done: int, asked: Usage, on_event: OnEvent) -> None:
        self.usage = Usage()
        self.on_event = on_event
        self._source = source
        self._asked = asked
        self._task = f"{source.what} done"
        self._done = done
        self._rows = len(source.ids)

    @property
    def total(self) -> Usage:
        """What this run sent: for its rows, and before them."""
        return total_usage([self._asked, self.usage])

    def keep(self, batch: pa.RecordBatch, parts: OutputParts) -> None:
        """Add a batch to the parts, with the hashes of what its rows were made from."""
        parts.add(batch, [self._source.digest(key) for key in batch[0].to_pylist()])

    def counted(self, made: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same batches; what they took is counted and told."""
        for batch in made:
            for name in ("calls", "cache_hits", "tokens_in", "tokens_out"):
                setattr(self.usage, name, getattr(self.usage, name) + sum(n or 0 for n in batch[name].to_pylist()))
            for usd in batch["usd"].to_pylist():
                self.usage.usd = add_usd(self.usage.usd, usd)
            self._done += batch.num_rows
            self.on_event(Progress(self._task, self._done, self._rows, self.total))
            yield batch
