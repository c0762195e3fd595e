"""Batch interface of OpenAI: files and batches. Azure, Together and a LiteLLM proxy have the same."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from programs.batch.job_requests import plain_job_errors
from programs.batch.job_table import JobRow
from programs.batch.provider import AnswerLine, JobProgress, line_fields, provider_error, whole_lines
from programs.batch.question import BatchQuestion
from programs.lm.keys import without_key
from programs.lm.transport import is_this_machine
from programs.runtime.errors import one_line

if TYPE_CHECKING:
    import openai
    from openai.types import Batch

ENDPOINT: Final = "/v1/chat/completions"
_NAME = "mllm3rec"
"""Key of a batch's metadata, and beginning of a file's name."""

_SKEW = 3600.0
"""Seconds by which the provider's clock may differ from ours."""

_ENDED = ("completed", "failed", "expired", "cancelled")
_TOO_MUCH_AT_WORK = "token_limit_exceeded"
"""Error of a batch that was created although the account's enqueued tokens are at their limit."""

_LIMIT_REACHED = "Enqueued token limit reached"
"""Beginning of its message."""

_TIMEOUT = 600.0


def openai_line(question: BatchQuestion) -> bytes:
    """A question as a line of the form that `vllm run-batch` reads, too."""
    fields = {"custom_id": question.key, "method": "POST", "url": ENDPOINT, "body": json.loads(question.body)}
    return json.dumps(fields, ensure_ascii=False).encode()


def openai_answer(raw: bytes) -> AnswerLine | None:
    """A line of an output or error file; None if it is none."""
    fields = line_fields(raw)
    if fields is None:
        return None
    response, error = fields.get("response"), fields.get("error")
    status = response.get("status_code") if isinstance(response, dict) else None
    if not isinstance(response, dict) or not isinstance(status, int) or not 0 < status < 600:
        return AnswerLine(fields["custom_id"], 0, json.dumps({"error": error}).encode())
    body = response.get("body")
    return AnswerLine(
        fields["custom_id"], status, json.dumps(body if isinstance(body, dict) else {"error": error}).encode()
    )


class OpenAIForm:
    """See `Provider`.

    Args:
        address: Up to and without `/files` and `/batches`.
        variable: Environment variable with the key, for messages.
    """

    name = "openai"
    most_lines = 50_000
    most_bytes = 200_000_000

    def __init__(self, address: str, key: str | None, variable: str) -> None:
        self._address, self._key, self._variable = address, key, variable
        self._client_of: openai.OpenAI | None = None

    @property
    def _client(self) -> openai.OpenAI:
        if self._client_of is None:
            import openai

            http = openai.DefaultHttpxClient(
                follow_redirects=False, trust_env=not is_this_machine(self._address), timeout=_TIMEOUT
            )
            # No retries of its own: a batch that is created twice is paid twice.
            self._client_of = openai.OpenAI(
                base_url=self._address, api_key=self._key or "none", max_retries=0, http_client=http
            )
        return self._client_of

    def line(self, question: BatchQuestion) -> bytes:
        """See `Provider`."""
        return openai_line(question)

    def upload(self, job: JobRow) -> str:
        """See `Provider`."""
        path = Path(job.path)
        name, size = f"{_NAME}-{job.id}.jsonl", path.stat().st_size
        with self._plain_errors():
            for known in self._client.files.list(purpose="batch", order="desc"):
                if known.created_at < job.written - _SKEW:
                    break
                if known.filename == name and known.bytes == size:
                    return known.id
            with path.open("rb") as file:
                return _sound(self._client.files.create(file=(name, file, "application/jsonl"), purpose="batch").id)

    def find(self, job: JobRow, others: Collection[str]) -> str | None:
        """See `Provider`."""
        with self._plain_errors():
            for batch in self._client.batches.list(limit=100):
                if batch.created_at < job.written - _SKEW:
                    break
                # What failed was not begun. Not every server keeps metadata.
                if batch.status != "failed" and (
                    (batch.metadata or {}).get(_NAME) == job.id or batch.input_file_id == job.file_id
                ):
                    return batch.id
        return None

    def create(self, job: JobRow) -> str:
        """See `Provider`."""
        with self._plain_errors():
            created = self._client.batches.create(
                input_file_id=job.file_id,
                endpoint=ENDPOINT,
                completion_window="24h",
                metadata={_NAME: job.id},
            )
            return _sound(created.id)

    def progress(self, job: JobRow) -> JobProgress:
        """See `Provider`."""
        with self._plain_errors():
            return _progress(self._client.batches.retrieve(job.batch_id))

    def cancel(self, job: JobRow) -> None:
        """See `Provider`."""
        with self._plain_errors():
            self._client.batches.cancel(job.batch_id)

    def answers(self, job: JobRow) -> Iterator[AnswerLine]:
        """See `Provider`."""
        with self._plain_errors():
            batch = self._client.batches.retrieve(job.batch_id)
            for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
                with self._client.files.with_streaming_response.content(file_id) as response:
                    where = f"{self._address}: file {file_id}"
                    for raw in whole_lines(self._received(response.iter_bytes()), where, self._key or ""):
                        if (line := openai_answer(raw)) is not None:
                            yield line

    def _received(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """The pieces of a file; raises `ConnectionError` if they end early."""
        try:
            yield from chunks
        # While a file arrives, the client passes on the errors of its HTTP library, which depends on its version.
        except Exception as error:
            raise ConnectionError(f"{self._address}: {one_line(error)}") from None

    @contextmanager
    def _plain_errors(self) -> Iterator[None]:
        """See `plain_job_errors`; also for the errors of OpenAI's client."""
        import openai

        key = self._key or ""
        with plain_job_errors(self._address, key):
            try:
                yield
            except openai.APIStatusError as error:
                # The key first: a message is cut, which may leave half a key.
                said = without_key(one_line(error), key)
                raise provider_error(error.status_code, said, self._address, self._variable) from None
            except openai.APIError as error:
                raise ConnectionError(f"{self._address}: {one_line(error)}") from None


def _progress(batch: Batch) -> JobProgress:
    """How far a batch is, as the server says; the client has not checked it."""
    answered = sum(int(_field(batch.request_counts, name) or 0) for name in ("completed", "failed"))
    if batch.status != "failed":
        return JobProgress(batch.status in _ENDED, answered)
    listed = batch.errors if isinstance(batch.errors, list) else _field(batch.errors, "data")
    errors = listed if isinstance(listed, list) else []
    said = "; ".join(str(_field(error, "message") or "") for error in errors) or "the provider does not say why"
    # Gateways may pass on the message alone.
    if any(_field(error, "code") == _TOO_MUCH_AT_WORK for error in errors) or said.startswith(_LIMIT_REACHED):
        return JobProgress(True, answered, busy=said)
    return JobProgress(True, answered, failure=said)


def _field(part: object, name: str) -> Any:
    """A field of a part of an answer; None if the server left it out."""
    return part.get(name) if isinstance(part, dict) else getattr(part, name, None)


def _sound(identity: object) -> str:
    """An id that the client has not checked."""
    if not isinstance(identity, str) or not identity:
        raise TypeError("no id")
    return identity
