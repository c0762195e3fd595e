"""What a batch interface can do: one small class for each provider's dialect."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from programs.batch.job_table import JobRow
from programs.batch.question import BatchQuestion
from programs.lm.keys import without_key
from programs.lm.transport import MOST_BYTES
from programs.runtime.errors import InputError, abridged

MOST_BYTES_OF_ANSWERS = 4 << 30
"""Of one file of answers: 50,000 answers of 80 kB."""

_SHOWN = 300
_REJECTED_KEY = "API_KEY_INVALID"
"""Google's reason, with status 400."""


@dataclass(frozen=True)
class AnswerLine:
    """One line of a file of answers.

    Attributes:
        key: The custom id.
        status: HTTP status of this line; 0 if nobody worked on it (expired, cancelled).
        body: The answer as it would have come for a call of its own, or an error.
    """

    key: str
    status: int
    body: bytes


@dataclass(frozen=True)
class JobProgress:
    """How far a job is.

    Attributes:
        ended: Whether its answers can be fetched.
        answered: Lines worked on.
        failure: Why the provider refused the job as a whole; empty if it did not.
        busy: Why it did not begin the job: others of this account are enough for now; empty if it did.
    """

    ended: bool
    answered: int
    failure: str = ""
    busy: str = ""


class Provider(Protocol):
    """The batch interface of one account.

    Methods that use the network raise `ConnectionError` for what may pass, and `InputError` for what does not.

    Attributes:
        name: Of the dialect, in the table of jobs.
        most_lines, most_bytes: Limits of one job.
    """

    name: str
    most_lines: int
    most_bytes: int

    def line(self, question: BatchQuestion) -> bytes:
        """A question as a line of a job's file, without its line feed."""
        ...

    def upload(self, job: JobRow) -> str:
        """Upload the job's file, unless it is there already; its id, or an empty text where there are no files."""
        ...

    def find(self, job: JobRow, others: Collection[str]) -> str | None:
        """The id of the batch that was created for this job; None if there is none.

        Args:
            others: Ids of batches of other jobs.
        """
        ...

    def create(self, job: JobRow) -> str:
        """Begin the job; the batch's id."""
        ...

    def progress(self, job: JobRow) -> JobProgress:
        """How far it is."""
        ...

    def cancel(self, job: JobRow) -> None:
        """Ask the provider to end the job; what it has answered by then can be fetched."""
        ...

    def answers(self, job: JobRow) -> Iterator[AnswerLine]:
        """The lines of all its files of answers, in any order; a line that cannot be read is left out."""
        ...


def whole_lines(chunks: Iterable[bytes], where: str, key: str = "") -> Iterator[bytes]:
    """The lines of a file that arrives in pieces.

    Args:
        key: Of the provider; it is taken out of the lines, because some are kept.

    Raises:
        InputError: if it is larger than a file of answers can be.
    """
    size, rest = 0, b""
    for chunk in chunks:
        size += len(chunk)
        *lines, rest = (rest + chunk).split(b"\n")
        if size > MOST_BYTES_OF_ANSWERS or len(rest) > MOST_BYTES:
            raise InputError(f"{where}: not a file of answers: it, or one of its lines, is too large")
        yield from (_without(key, line) for line in lines)
    yield _without(key, rest)


def _without(key: str, line: bytes) -> bytes:
    # Every byte is a character of Latin-1, so that what is no text survives.
    return without_key(line.decode("latin-1"), key).encode("latin-1") if key else line


def object_line(raw: bytes) -> dict[str, Any] | None:
    """A line of a file of answers as a JSON object; None if it is none."""
    try:
        fields = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) else None


def line_fields(raw: bytes) -> dict[str, Any] | None:
    """A line of a file of answers as a JSON object with a custom id; None if it is none."""
    fields = object_line(raw)
    return fields if fields is not None and isinstance(fields.get("custom_id"), str) else None


def provider_error(status: int, text: str, address: str, variable: str) -> Exception:
    """The error for a provider's refusal of a request about jobs.

    Args:
        variable: Environment variable with the key.
    """
    said = abridged(" ".join(text.split()), _SHOWN)
    if 300 <= status < 400:
        return InputError(f"{address}: HTTP {status}: redirects are never followed; correct the address")
    if status in (401, 403) or _REJECTED_KEY in text:
        return InputError(f"{address}: HTTP {status}: {said}; set the environment variable {variable}")
    if status in (404, 405, 501):
        return InputError(f"{address}: HTTP {status}: no batch interface there ({said}); leave out --via batch")
    if status in (408, 409, 429) or status >= 500:
        return ConnectionError(f"{address}: HTTP {status}: {said}")
    return InputError(f"{address}: HTTP {status}: the batch was refused: {said}")
