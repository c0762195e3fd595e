"""Table of batch jobs and their lines (SQLite): what was submitted where, and how each line ended.

Every change is on disk before the next step begins, so that a run can tell after any crash what was submitted.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from programs.batch.question import BatchQuestion, Refusal
from programs.lm.ledger import Call
from programs.runtime.environment import cache_dir
from programs.runtime.errors import InputError
from programs.runtime.sqlite_file import open_database

JobState = Literal["written", "uploaded", "creating", "created", "ended", "fetched", "dropped"]
"""`written`: the file is on disk; `uploaded`: the provider has it; `creating`: asked to begin, perhaps without having
heard the answer; `created`: at work; `ended`: answers can be fetched; `fetched`: they are in the response cache;
`dropped`: given up before it was created."""

OPEN: tuple[JobState, ...] = ("written", "uploaded", "creating", "created", "ended")
AT_WORK: tuple[JobState, ...] = ("created", "ended")
"""The provider has them."""

_PATIENCE = 60.0
_TABLES = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, owner TEXT NOT NULL, provider TEXT NOT NULL, address TEXT NOT NULL, model TEXT NOT NULL,
    key_variable TEXT, path TEXT NOT NULL, sha256 TEXT NOT NULL, lines INTEGER NOT NULL, most_usd REAL, price TEXT,
    state TEXT NOT NULL, file_id TEXT NOT NULL DEFAULT '', batch_id TEXT NOT NULL DEFAULT '', written REAL NOT NULL,
    submitted REAL, answered INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS lines (
    job TEXT NOT NULL, number INTEGER NOT NULL, key TEXT NOT NULL, form TEXT NOT NULL, question TEXT,
    call TEXT, refused INTEGER, body TEXT, PRIMARY KEY (job, number));
CREATE INDEX IF NOT EXISTS line_keys ON lines (key);
"""


def jobs_file() -> Path:
    """Where the table of jobs is; their files are beside it."""
    return cache_dir() / "batches" / "jobs.sqlite"


@dataclass(frozen=True)
class JobRow:
    """One job.

    Attributes:
        id: Hash of its file, and how many jobs with that content there were before.
        owner: Ledger file of the run that pays for it.
        provider: Name of its dialect.
        address: Base URL of the provider.
        model: Model string of its lines.
        key_variable: Environment variable with the key; None for the model's own.
        path: Its file.
        sha256: Of the file.
        lines: Number of its lines.
        most_usd: Upper estimate of what it costs; None where unknown.
        price: Of its model in batches, as JSON; None where unknown.
        file_id, batch_id: Of the provider; empty before it gave them.
        written, submitted: Unix seconds.
        answered: Lines that the provider has worked on, when last heard of.
        cancelled: Whether somebody has ended it by hand.
    """

    id: str
    owner: str
    provider: str
    address: str
    model: str
    key_variable: str | None
    path: str
    sha256: str
    lines: int
    most_usd: float | None
    price: str | None
    state: JobState
    file_id: str
    batch_id: str
    written: float
    submitted: float | None
    answered: int
    cancelled: bool = False

    @property
    def account(self) -> tuple[str, str, str]:
        """Address, model and variable with the key, as `account_of` its questions."""
        return self.address, self.model, self.key_variable or ""


_COLUMNS = ", ".join(field.name for field in fields(JobRow))


@dataclass(frozen=True)
class LineEnd:
    """How a line ended.

    Attributes:
        call: For the ledger; None if nothing was worked on.
        refusal: The error, if it is one for good; None for an answer, or to ask again.
    """

    call: Call | None = None
    refusal: Refusal | None = None


class JobTable:
    """The jobs of all runs that share a cache folder.

    Args:
        path: The file; made with its folder, private to the user, if it is missing.

    Raises:
        InputError: if it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        with self._errors():
            self._database = open_database(path, _PATIENCE)
            # Unlike a cache: what was submitted must be known after a power cut, too.
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_TABLES)
        self._add_missing_column()

    def _add_missing_column(self) -> None:
        """Tables of older versions do not know which jobs were cancelled."""
        with self._transaction() as database:
            if "cancelled" not in {row[1] for row in database.execute("PRAGMA table_info(jobs)")}:
                database.execute("ALTER TABLE jobs ADD COLUMN cancelled INTEGER NOT NULL DEFAULT 0")

    def close(self) -> None:
        """Close the file; the table cannot be used afterwards."""
        self._database.close()

    def jobs(self, states: Collection[JobState] = OPEN) -> list[JobRow]:
        """Jobs in some states, oldest first."""
        marks = ", ".join("?" * len(states))
        query = f"SELECT {_COLUMNS} FROM jobs WHERE state IN ({marks}) ORDER BY written, id"  # noqa: S608
        return [JobRow(*row) for row in self._all(query, *states)]

    def job(self, job_id: str) -> JobRow:
        """One job."""
        (row,) = self._all(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", job_id)  # noqa: S608
        return JobRow(*row)

    def with_content(self, sha256: str) -> int:
        """Number of jobs whose file has this content."""
        ((count,),) = self._all("SELECT COUNT(*) FROM jobs WHERE sha256 = ?", sha256)
        return int(count)

    def add(self, job: JobRow, questions: Sequence[BatchQuestion]) -> None:
        """Add a job with its lines."""
        marks = ", ".join("?" * len(fields(JobRow)))
        lines = [
            (job.id, number, question.key, question.form, question.model_dump_json(exclude={"body"}))
            for number, question in enumerate(questions)
        ]
        with self._transaction() as database:
            database.execute(
                f"INSERT INTO jobs ({_COLUMNS}) VALUES ({marks})",  # noqa: S608 - names of columns
                [getattr(job, field.name) for field in fields(JobRow)],
            )
            database.executemany("INSERT INTO lines (job, number, key, form, question) VALUES (?, ?, ?, ?, ?)", lines)

    def update(self, job_id: str, **columns: Any) -> JobRow:
        """Change columns of a job; returns it."""
        changes = ", ".join(f"{name} = ?" for name in columns)
        with self._transaction() as database:
            database.execute(f"UPDATE jobs SET {changes} WHERE id = ?", [*columns.values(), job_id])  # noqa: S608
        return self.job(job_id)

    def questions(self, job_id: str) -> list[BatchQuestion]:
        """The lines of a job that has not been fetched, in order, without their bodies."""
        rows = self._all("SELECT question FROM lines WHERE job = ? ORDER BY number", job_id)
        return [BatchQuestion.model_validate_json(row[0]) for row in rows]

    def settle(self, job_id: str, ends: Mapping[str, LineEnd]) -> None:
        """Note how the lines of a job ended, by key, and that it was fetched; forget the prompts."""
        rows = [
            (
                None if end.call is None else end.call.model_dump_json(exclude_defaults=True),
                None if end.refusal is None else end.refusal.status,
                None if end.refusal is None else end.refusal.body,
                job_id,
                key,
            )
            for key, end in ends.items()
        ]
        with self._transaction() as database:
            database.executemany(
                "UPDATE lines SET call = ?, refused = ?, body = ?, question = NULL WHERE job = ? AND key = ?", rows
            )
            database.execute("UPDATE jobs SET state = 'fetched' WHERE id = ?", [job_id])

    def drop(self, job_id: str) -> None:
        """Give up a job that was not created; its questions can be asked anew."""
        with self._transaction() as database:
            database.execute("DELETE FROM lines WHERE job = ?", [job_id])
            database.execute("UPDATE jobs SET state = 'dropped' WHERE id = ?", [job_id])

    def open_keys(self) -> dict[str, str]:
        """The open job of every question that is in one, by key."""
        marks = ", ".join("?" * len(OPEN))
        query = f"SELECT key, job FROM lines JOIN jobs ON job = id WHERE state IN ({marks})"  # noqa: S608
        return dict(self._all(query, *OPEN))

    def calls_of(self, owner: str) -> list[Call]:
        """The calls that a run has to pay for, of all jobs that were fetched."""
        rows = self._all(
            "SELECT call FROM lines JOIN jobs ON job = id WHERE owner = ? AND call IS NOT NULL "
            "ORDER BY written, job, number",
            owner,
        )
        return [Call.model_validate_json(row[0]) for row in rows]

    def refusals(self, owner: str) -> dict[tuple[str, str], Refusal]:
        """Errors for good of a run's lines, by key and by form of the body."""
        query = (
            "SELECT key, form, refused, body FROM lines JOIN jobs ON job = id WHERE owner = ? AND refused IS NOT NULL"
        )
        rows = self._all(query, owner)
        return {(key, form): Refusal(status, body) for key, form, status, body in rows}

    def forget_refusals(self, owner: str, status: int | None = None) -> None:
        """Let the questions of a run that were refused be asked again; with `status`, only those refused so."""
        query = "UPDATE lines SET refused = NULL, body = NULL WHERE job IN (SELECT id FROM jobs WHERE owner = ?)"
        with self._transaction() as database:
            if status is None:
                database.execute(query, [owner])
            else:
                database.execute(query + " AND refused = ?", [owner, status])

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, self._errors():
            return self._database.execute(query, values).fetchall()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._database.execute("BEGIN IMMEDIATE")
            with self._database:
                yield self._database

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise InputError(
                f"{self.path}: cannot be used as the table of batch jobs ({error}); make room or correct its "
                "permissions. Do not delete it while jobs are under way: they might be submitted again"
            ) from error
