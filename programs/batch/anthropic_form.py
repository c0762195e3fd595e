"""Batch interface of Anthropic: message batches, whose requests are sent in one body without a file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from datetime import datetime
from pathlib import Path

from programs.batch.job_requests import JobRequests
from programs.batch.job_table import JobRow
from programs.batch.provider import AnswerLine, JobProgress, line_fields
from programs.batch.question import BatchQuestion

_VERSION = "2023-06-01"
_SKEW = 60.0
"""Seconds by which the provider's clock may be behind ours."""

_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""Of a call of its own, by the type of its error."""


def anthropic_answer(raw: bytes) -> AnswerLine | None:
    """A line of the results; None if it is none."""
    fields = line_fields(raw)
    result = None if fields is None else fields.get("result")
    if fields is None or not isinstance(result, dict):
        return None
    if result.get("type") == "succeeded" and isinstance(result.get("message"), dict):
        return AnswerLine(fields["custom_id"], 200, json.dumps(result["message"]).encode())
    error = result.get("error")
    # The error of a call of its own, in an envelope, or without.
    inner = error.get("error", error) if isinstance(error, dict) else {}
    kind = inner.get("type") if isinstance(inner, dict) else None
    status = _STATUS.get(str(kind), 500) if result.get("type") == "errored" else 0
    return AnswerLine(fields["custom_id"], status, json.dumps({"type": "error", "error": inner}).encode())


class AnthropicForm:
    """See `Provider`.

    A batch carries no metadata. After a crash between its creation and the answer to that, a batch of the same size
    that began since then is taken for ours; its custom ids tell, once it has ended (`run.py` ignores foreign ones).

    Args:
        address: Up to and without `/messages/batches`.
        variable: Environment variable with the key, for messages.
    """

    name = "anthropic"
    most_lines = 100_000
    most_bytes = 250_000_000

    def __init__(self, address: str, key: str | None, variable: str) -> None:
        self._batches = address.rstrip("/") + "/messages/batches"
        headers = {"x-api-key": key or "", "anthropic-version": _VERSION}
        self._requests = JobRequests(address, headers, key, variable)

    def line(self, question: BatchQuestion) -> bytes:
        """See `Provider`."""
        fields = {"custom_id": question.key, "params": json.loads(question.body)}
        return json.dumps(fields, ensure_ascii=False).encode()

    def upload(self, job: JobRow) -> str:
        """See `Provider`: there are no files."""
        return ""

    def find(self, job: JobRow, others: Collection[str]) -> str | None:
        """See `Provider`."""
        if job.state != "creating":
            return None
        since = (job.submitted or job.written) - _SKEW
        with self._requests.plain_errors():
            ours = [
                str(batch["id"])
                for batch in self._requests.ask("GET", self._batches, params={"limit": 100})["data"]
                if batch["id"] not in others
                and sum(batch["request_counts"].values()) == job.lines
                and datetime.fromisoformat(batch["created_at"]).timestamp() > since
            ]
        return ours[-1] if ours else None

    def create(self, job: JobRow) -> str:
        """See `Provider`."""
        lines = Path(job.path).read_bytes().splitlines()
        content = b'{"requests": [' + b",".join(lines) + b"]}"
        with self._requests.plain_errors():
            return str(self._requests.ask("POST", self._batches, content=content)["id"])

    def progress(self, job: JobRow) -> JobProgress:
        """See `Provider`."""
        with self._requests.plain_errors():
            batch = self._requests.ask("GET", f"{self._batches}/{job.batch_id}")
            at_work = int(batch["request_counts"]["processing"])
            return JobProgress(batch["processing_status"] == "ended", job.lines - at_work)

    def cancel(self, job: JobRow) -> None:
        """See `Provider`."""
        self._requests.ask("POST", f"{self._batches}/{job.batch_id}/cancel")

    def answers(self, job: JobRow) -> Iterator[AnswerLine]:
        """See `Provider`."""
        # Not the address that the answer names: the key goes to this provider only.
        url = f"{self._batches}/{job.batch_id}/results"
        for raw in self._requests.lines(url):
            if (line := anthropic_answer(raw)) is not None:
                yield line
