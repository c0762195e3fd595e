"""Batch interface of Anthropic: message batches, whose requests are sent in one body without a file."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx

from programs.batch.job_table import JobRow
from programs.batch.provider import AnswerLine, JobProgress, line_fields, provider_error, whole_lines
from programs.batch.question import BatchQuestion
from programs.lm.keys import no_key_in_errors
from programs.lm.transport import is_this_machine
from programs.runtime.errors import InputError, one_line

_VERSION = "2023-06-01"
_SKEW = 60.0
"""Seconds by which the provider's clock may be behind ours."""

_TIMEOUT = 600.0
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
        self._address, self._key, self._variable = address, key, variable
        self._batches = address.rstrip("/") + "/messages/batches"
        self._http = httpx.Client(
            headers={"x-api-key": key or "", "anthropic-version": _VERSION},
            timeout=_TIMEOUT,
            follow_redirects=False,
            trust_env=not is_this_machine(address),
        )

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
        with self._plain_errors():
            ours = [
                str(batch["id"])
                for batch in self._json("GET", self._batches, params={"limit": 100})["data"]
                if batch["id"] not in others
                and sum(batch["request_counts"].values()) == job.lines
                and datetime.fromisoformat(batch["created_at"]).timestamp() > since
            ]
        return ours[-1] if ours else None

    def create(self, job: JobRow) -> str:
        """See `Provider`."""
        lines = Path(job.path).read_bytes().splitlines()
        with self._plain_errors():
            return str(self._json("POST", self._batches, content=b'{"requests": [' + b",".join(lines) + b"]}")["id"])

    def progress(self, job: JobRow) -> JobProgress:
        """See `Provider`."""
        with self._plain_errors():
            batch = self._json("GET", f"{self._batches}/{job.batch_id}")
            at_work = int(batch["request_counts"]["processing"])
            return JobProgress(batch["processing_status"] == "ended", job.lines - at_work)

    def cancel(self, job: JobRow) -> None:
        """See `Provider`."""
        self._json("POST", f"{self._batches}/{job.batch_id}/cancel")

    def answers(self, job: JobRow) -> Iterator[AnswerLine]:
        """See `Provider`."""
        # Not the address that the answer names: the key goes to this provider only.
        url = f"{self._batches}/{job.batch_id}/results"
        with self._plain_errors(), self._http.stream("GET", url) as response:
            if response.status_code != 200:
                response.read()
                raise provider_error(response.status_code, response.text, self._address, self._variable)
            for raw in whole_lines(response.iter_bytes(), url, self._key or ""):
                if (line := anthropic_answer(raw)) is not None:
                    yield line

    def _json(self, method: str, url: str, **request: Any) -> dict[str, Any]:
        with self._plain_errors():
            response = self._http.request(method, url, headers={"content-type": "application/json"}, **request)
            if response.status_code != 200:
                raise provider_error(response.status_code, response.text, self._address, self._variable)
            return dict(response.json())

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        with no_key_in_errors(self._key or ""):
            try:
                yield
            except InputError:
                raise
            except httpx.HTTPError as error:
                raise ConnectionError(f"{self._address}: {one_line(error)}") from None
            except (ValueError, LookupError, TypeError, AttributeError) as error:
                # After a request to create a batch: it may have been created, so this is no refusal.
                raise ConnectionError(f"{self._address}: the answer cannot be read ({one_line(error)})") from None
