"""The finished Parquet parts of an output: files in a folder beside it, joined into one file at the end.

A part is written whole or not at all, so a killed process loses the rows since the last one; their answers are in the
response cache. Rows of failed calls are made again by the next run, and the later row of an id counts. An output that
earlier runs finished is read where it is, before the parts, and stays until the new one replaces it.

What each row was made from is kept as a hash: in a further column of the parts, and in a file of its own beside the
finished output, whose columns are public.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mllm3rec.stages.columns import FAILED, UNPARSABLE
from mllm3rec.stages.worker_ledgers import worker_ledgers
from programs.lm.fresh_answers import SALT_FILE
from programs.runtime.atomic import sweep, write_atomically
from programs.runtime.errors import InputError, abridged, one_line
from programs.runtime.lock import LOCK, owned
from programs.runtime.untrusted import parse_untrusted_json, read_regular, regular

_ROWS, _SECONDS = 1000, 30.0
"""A part is written when there are so many rows, or after so long."""

AGAIN = frozenset({FAILED, UNPARSABLE})
"""Statuses of rows that another run makes again, those that are unparsable only on demand."""

_IDENTITY = b"mllm3rec.identity"
_JOB = "job.json"
_PARTS = f"part-{6 * '[0-9]'}.parquet"
_INPUT = "input"
"""Column with the hash of what a row was made from."""


class OutputParts:
    """The parts of one output file; made with `opened`.

    Attributes:
        inputs: Hash of what a row was made from, by id; rows of older versions have none.
        is_older: Whether there are rows of an older version, whose identity says less.
        counts: Rows by status, of all ids that have one and are not left out by `keep_only`.
    """

    def __init__(self, out: Path, schema: pa.Schema, identity: str, older_identity: str) -> None:
        self.out = out
        self.folder = parts_folder(out)
        self.inputs: dict[str, str] = {}
        self.is_older = False
        self._schema = schema.with_metadata({_IDENTITY: identity.encode()})
        self._part_schema = self._schema.append(pa.field(_INPUT, pa.string()))
        self._key: str = schema.names[0]
        self._identity = identity
        self._older_identity = older_identity
        self._waiting: list[pa.RecordBatch] = []
        self._written = time.monotonic()
        self._status: dict[str, str] = {}

    def done(self, again: Collection[str]) -> set[str]:
        """Ids with a row whose status is none of `again`."""
        return {key for key, status in self._status.items() if status not in again}

    @property
    def counts(self) -> Counter[str]:
        """Rows by status."""
        return Counter(self._status.values())

    def add(self, batch: pa.RecordBatch, inputs: Sequence[str | None]) -> None:
        """Add rows with the hashes of what they were made from; they are written with the next part."""
        batch = batch.append_column(_INPUT, pa.array(inputs, pa.string()))
        self._count(batch)
        self._waiting.append(batch)
        rows = sum(one.num_rows for one in self._waiting)
        if rows >= _ROWS or time.monotonic() - self._written >= _SECONDS:
            self.write()

    def write(self) -> None:
        """Write the rows that wait, as one part."""
        self._written = time.monotonic()
        if self._waiting:
            table = pa.Table.from_batches(self._waiting).cast(self._part_schema)
            write_atomically(self.folder / f"part-{self._next_number():06d}.parquet", _as_parquet(table))
            self._waiting = []

    def keep_only(self, ids: Collection[str]) -> int:
        """Leave out the rows of all other ids, from counts and output; returns their number."""
        others = self._status.keys() - set(ids)
        for key in others:
            del self._status[key]
            self.inputs.pop(key, None)
        return len(others)

    def join(self) -> None:
        """Write the output file, in the order in which its rows were made, and remove the parts.

        The salt of `--fresh` stays while there are rows that another run makes again: their answers are to be new, too.
        """
        self.write()
        last = {key: number for number, key in enumerate(self._keys()) if key in self._status}
        partial = self.folder / f".{self.out.name}.partial"
        number = 0
        with partial.open("wb") as file:
            with pq.ParquetWriter(file, self._schema) as writer:
                for batch in self._batches(self._schema.names):
                    keep = [last.get(key) == n for n, key in enumerate(batch[self._key].to_pylist(), start=number)]
                    number += batch.num_rows
                    writer.write_batch(batch.filter(pa.array(keep)).cast(self._schema))
            # The parts are removed below: a power cut must not leave neither.
            file.flush()
            os.fsync(file.fileno())
        # Before the output: after a kill in between, the parts are joined again.
        known = [key for key in self._status if key in self.inputs]
        if known:
            content = {self._key: known, _INPUT: [self.inputs[key] for key in known]}
            write_atomically(inputs_file(self.out), _as_parquet(pa.table(content)))
        partial.replace(self.out)
        if (self.folder / SALT_FILE).exists() and self.counts.keys() & AGAIN:
            self._remove_all_but_salt()
        else:
            shutil.rmtree(self.folder)

    def _remove_all_but_salt(self) -> None:
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in (SALT_FILE, LOCK):
                path.unlink()

    def open(self) -> None:
        """Find what earlier runs have made, in parts and in an output file that they finished.

        Raises:
            InputError: if it was made with other settings, or a file cannot be read.
        """
        sweep(self.folder)
        job = self.folder / _JOB
        if job.exists():
            self._check(self.folder, _identity_in(job))
        if self.out.exists():
            with _reading(self.out) as file:
                made_with = (file.schema_arrow.metadata or {}).get(_IDENTITY, b"")
            self._check(self.out, made_with.decode("utf-8", "replace"))
        write_atomically(job, json.dumps({"identity": self._identity}).encode())
        if inputs_file(self.out).exists() and self._files():
            with _reading(inputs_file(self.out)) as file:
                self._note_inputs(file.read())
        for batch in self._batches([self._key, "status", _INPUT]):
            self._count(batch)

    def _check(self, where: Path, identity: object) -> None:
        if identity != self._identity and identity == self._older_identity:
            self.is_older = True
        elif identity != self._identity:
            raise InputError(
                f"{where}: made with other settings or from other data, or by another program; choose another --out, "
                "or delete it"
            )

    def remove_if_empty(self) -> None:
        """Remove the folder if no row was made.

        It stays if it has ledgers of workers, which may not have ended yet, or the salt of `--fresh`, without which
        answers that were paid are not found again.
        """
        if not self._parts() and not worker_ledgers(self.folder) and not (self.folder / SALT_FILE).exists():
            shutil.rmtree(self.folder)

    def _count(self, batch: pa.RecordBatch) -> None:
        self._status.update(zip(batch[self._key].to_pylist(), batch["status"].to_pylist(), strict=True))
        if _INPUT in batch.schema.names:
            self._note_inputs(batch)

    def _note_inputs(self, rows: pa.RecordBatch | pa.Table) -> None:
        made_from = zip(rows[self._key].to_pylist(), rows[_INPUT].to_pylist(), strict=True)
        self.inputs.update((key, digest) for key, digest in made_from if digest is not None)

    def _parts(self) -> list[Path]:
        return sorted(self.folder.glob(_PARTS))

    def _next_number(self) -> int:
        """From 1: older versions move a finished output to part 0."""
        return max((int(path.stem.removeprefix("part-")) for path in self._parts()), default=0) + 1

    def _files(self) -> list[Path]:
        """All files with rows, oldest first."""
        return [*([self.out] if self.out.exists() else []), *self._parts()]

    def _batches(self, names: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        for path in self._files():
            with _reading(path) as file:
                yield from file.iter_batches(columns=names)

    def _keys(self) -> Iterator[str]:
        for batch in self._batches([self._key]):
            yield from batch[self._key].to_pylist()


def parts_folder(out: Path) -> Path:
    """The folder with the parts of an output file that is not finished."""
    return out.with_name(f"{out.name}.parts")


def inputs_file(out: Path) -> Path:
    """The file with hashes of what the rows of a finished output were made from, in Parquet's form."""
    return out.with_name(f"{out.name}.inputs")


@contextmanager
def opened(out: Path, schema: pa.Schema, identity: str, older_identity: str) -> Iterator[OutputParts]:
    """The parts of an output file, locked against other processes. Rows that wait are written at the end of the block.

    Args:
        identity: Hash of what decides all rows.
        older_identity: That which an older version would have written; its rows are taken.

    Raises:
        InputError: if another process makes the same file, it was made with other settings, or it is no Parquet file.
    """
    parts = OutputParts(out, schema, identity, older_identity)
    with owned(parts.folder):
        try:
            parts.open()
            yield parts
        finally:
            if parts.folder.exists():
                parts.write()
                parts.remove_if_empty()


@contextmanager
def _reading(path: Path) -> Iterator[pq.ParquetFile]:
    """A Parquet file, open to be read.

    Raises:
        InputError: if it is none, or damaged.
    """
    try:
        with pq.ParquetFile(regular(path)) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # Arrow raises some of its own without a number.
            raise
        raise InputError(
            f"{path}: not a Parquet file, or damaged ({abridged(one_line(error))}); delete it, or choose another --out"
        ) from None


def _identity_in(job: Path) -> object:
    found = parse_untrusted_json(read_regular(job), job, f"delete the folder {job.parent}, or choose another --out")
    return found.get("identity") if isinstance(found, dict) else None


def _as_parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    content: bytes = sink.getvalue().to_pybytes()
    return content
