"""Batch interface of Google: one operation for each job, whose questions and answers are sent without files."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from programs.batch.job_requests import JobRequests
from programs.batch.job_table import JobRow
from programs.batch.provider import AnswerLine, JobProgress, object_line
from programs.batch.question import BatchQuestion

_NAME = "mllm3rec"
"""Beginning of a batch's display name."""

_PAGE = 5
"""Batches in one answer to a listing, each of which may come with all its answers."""

_MOST_PAGES = 10_000
_BATCH = re.compile(r"batches/[A-Za-z0-9_-]+")
_FILE = re.compile(r"files/[A-Za-z0-9_-]+")
_ENDED = ("SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "EXPIRED")
_WITH_ANSWERS = ("SUCCEEDED", "PARTIALLY_SUCCEEDED")
_CANCELLED, _UNKNOWN = 1, 2
_STATUS = {
    _UNKNOWN: (500, "UNKNOWN"),
    3: (400, "INVALID_ARGUMENT"),
    4: (504, "DEADLINE_EXCEEDED"),
    5: (404, "NOT_FOUND"),
    6: (409, "ALREADY_EXISTS"),
    7: (403, "PERMISSION_DENIED"),
    8: (429, "RESOURCE_EXHAUSTED"),
    9: (400, "FAILED_PRECONDITION"),
    10: (409, "ABORTED"),
    11: (400, "OUT_OF_RANGE"),
    12: (501, "UNIMPLEMENTED"),
    13: (500, "INTERNAL"),
    14: (503, "UNAVAILABLE"),
    15: (500, "DATA_LOSS"),
    16: (401, "UNAUTHENTICATED"),
}
"""Of a call of its own, HTTP status and its name, by `google.rpc.Code`: that is what the error of a line holds."""


def google_answer(item: object) -> AnswerLine | None:
    """One of the answers of a batch; None if nobody can tell which question it answers."""
    fields = _fields(item)
    # Answers in the operation have their key in the metadata, those in a file beside the answer.
    key = _fields(fields.get("metadata")).get("key", fields.get("key"))
    if not isinstance(key, str):
        return None
    if fields.get("response") is not None:
        return AnswerLine(key, 200, json.dumps(fields["response"]).encode())
    error = _fields(fields.get("error"))
    status, name = _status_of(error)
    return AnswerLine(key, status, json.dumps({"error": {**error, "code": status, "status": name}}).encode())


def _status_of(error: Mapping[str, Any]) -> tuple[int, str]:
    code = error.get("code")
    if not error or code == _CANCELLED:
        return 0, ""
    if not isinstance(code, int):
        return _STATUS[_UNKNOWN]
    # Gateways write the status itself.
    return (code, str(error.get("status", ""))) if 400 <= code < 600 else _STATUS.get(code, _STATUS[_UNKNOWN])


class GoogleForm:
    """See `Provider`.

    A batch's display name holds the job's id. A job is sent in one body, which Google allows up to 20 MB, and answered
    in one, for whose sake its lines are limited, too.

    Args:
        address: Up to and without `/models/...` and `/batches`.
        variable: Environment variable with the key, for messages.
    """

    name = "google"
    most_lines = 10_000
    most_bytes = 19_000_000

    def __init__(self, address: str, key: str | None, variable: str) -> None:
        self._address = address.rstrip("/")
        self._requests = JobRequests(address, {"x-goog-api-key": key or ""}, key, variable)

    def line(self, question: BatchQuestion) -> bytes:
        """See `Provider`."""
        fields = {"request": json.loads(question.body), "metadata": {"key": question.key}}
        return json.dumps(fields, ensure_ascii=False).encode()

    def upload(self, job: JobRow) -> str:
        """See `Provider`: there are no files."""
        return ""

    def find(self, job: JobRow, others: Collection[str]) -> str | None:
        """See `Provider`."""
        if job.state != "creating":
            return None
        params: dict[str, Any] = {"pageSize": _PAGE}
        with self._requests.plain_errors():
            for _ in range(_MOST_PAGES):
                page = self._requests.ask("GET", f"{self._address}/batches", params=params)
                for operation in page.get("operations", ()):
                    ours = _fields(operation.get("metadata")).get("displayName") == _display_name(job)
                    if ours and (identity := _batch_id(operation)) not in others:
                        return identity
                if not page.get("nextPageToken"):
                    return None
                params["pageToken"] = str(page["nextPageToken"])
            raise ValueError("a list of batches without an end")

    def create(self, job: JobRow) -> str:
        """See `Provider`."""
        model = job.model.partition("/")[2].removeprefix("models/")
        lines = Path(job.path).read_bytes().splitlines()
        name = json.dumps(_display_name(job)).encode()
        content = b'{"batch": {"displayName": %b, "inputConfig": {"requests": {"requests": [%b]}}}}'
        with self._requests.plain_errors():
            url = f"{self._address}/models/{model}:batchGenerateContent"
            return _batch_id(self._requests.ask("POST", url, content=content % (name, b",".join(lines))))

    def progress(self, job: JobRow) -> JobProgress:
        """See `Provider`."""
        operation = self._requests.ask("GET", self._url(job))
        state, stats = _state(operation), _fields(_fields(operation.get("metadata")).get("batchStats"))
        answered = _count(stats.get("successfulRequestCount")) + _count(stats.get("failedRequestCount"))
        failure = ""
        if state == "FAILED" and not _output(operation):
            said = _fields(operation.get("error")).get("message")
            failure = str(said or "the provider does not say why")
        return JobProgress(operation.get("done") is True or state in _ENDED, answered, failure)

    def cancel(self, job: JobRow) -> None:
        """See `Provider`."""
        self._requests.ask("POST", f"{self._url(job)}:cancel")

    def answers(self, job: JobRow) -> Iterator[AnswerLine]:
        """See `Provider`."""
        operation = self._requests.ask("GET", self._url(job))
        with self._requests.plain_errors():
            output = _output(operation)
            if not output and _state(operation) in _WITH_ANSWERS:
                # They are not missing: to ask again would be to pay twice.
                raise ValueError("the batch has answers, but does not hold them")
            inlined = output.get("inlinedResponses", [])
            items = inlined.get("inlinedResponses", []) if isinstance(inlined, dict) else inlined
            yield from filter(None, map(google_answer, items))
            if "responsesFile" in output:
                # Not an address that the answer names: the key goes to this provider only.
                name = _sound(_FILE, output["responsesFile"])
                for raw in self._requests.lines(f"{self._address}/{name}:download?alt=media"):
                    if (line := google_answer(object_line(raw))) is not None:
                        yield line

    def _url(self, job: JobRow) -> str:
        return f"{self._address}/{job.batch_id}"


def _display_name(job: JobRow) -> str:
    return f"{_NAME}-{job.id}"


def _fields(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _sound(form: re.Pattern[str], name: object) -> str:
    """A name that becomes part of an address."""
    if not isinstance(name, str) or form.fullmatch(name) is None:
        raise ValueError("a name of another form")
    return name


def _batch_id(operation: Mapping[str, Any]) -> str:
    return _sound(_BATCH, operation.get("name"))


def _state(operation: Mapping[str, Any]) -> str:
    """`SUCCEEDED` and the like; other clients and gateways write `JOB_STATE_...` for `BATCH_STATE_...`."""
    return str(_fields(operation.get("metadata")).get("state", "")).rpartition("_STATE_")[2]


def _output(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    """Where the answers are: in the response of the operation, and once more in its metadata."""
    for output in (_fields(operation.get("response")), _fields(_fields(operation.get("metadata")).get("output"))):
        if "inlinedResponses" in output or "responsesFile" in output:
            return output
    return {}


def _count(value: object) -> int:
    """A number of lines: Google writes 64-bit integers as texts."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
