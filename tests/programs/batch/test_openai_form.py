"""OpenAI's batch interface when the network or the server fails: errors are plain, without a key, and tried again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from programs.batch.job_table import JobRow
from programs.batch.openai_form import OpenAIForm
from programs.batch.provider import JobProgress
from programs.lm.roles import local_roles
from programs.runtime.errors import InputError
from tests.support.batch_server import BatchServer
from tests.support.batch_sessions import by_batches, by_calls

KEY, VARIABLE = "sk-canary-0123456789abcdef", "OPENAI_API_KEY"
JOB = JobRow(
    id="job-0",
    owner="",
    provider="openai",
    address="",
    model="openai/gpt",
    key_variable=None,
    path="",
    sha256="",
    lines=1,
    most_usd=None,
    price=None,
    state="created",
    file_id="",
    batch_id="batch-0",
    written=0.0,
    submitted=None,
    answered=0,
)


class FailingServer(BatchServer):
    """A server that answers looks at a job with something else for some times.

    Args:
        answer: Status and body in place of the state of a job.
        times: How often.
    """

    def __init__(self, answer: tuple[int, bytes], times: int) -> None:
        super().__init__()
        self._answer, self._left = answer, times

    def serve(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """See `BatchServer`."""
        if method == "GET" and "/batches/" in path and self._left:
            self._left -= 1
            return self._answer
        return super().serve(method, path, body)


@pytest.mark.parametrize("before", range(240, 300, 4))
def test_no_part_of_a_key_is_shown_where_a_message_is_cut(before: int) -> None:
    said = f'{{"error": {{"message": "{"x" * before}{KEY} is no key {"x" * 300}"}}}}'.encode()
    with FailingServer((401, said), 1) as server, pytest.raises(InputError, match=VARIABLE) as caught:
        OpenAIForm(server.url, KEY, VARIABLE).progress(JOB)
    assert KEY[:8] not in str(caught.value)


@pytest.mark.parametrize(
    ("odd", "expected"),
    [
        ({"status": "in_progress", "request_counts": {"total": 3}}, JobProgress(False, 0)),
        ({"status": "in_progress", "request_counts": {"completed": None, "failed": 2}}, JobProgress(False, 2)),
        ({"status": "failed", "errors": [{"message": "no"}]}, JobProgress(True, 0, failure="no")),
        ({"status": "failed", "errors": {"data": [{"message": 7}, None]}}, JobProgress(True, 0, failure="7; ")),
        ({"status": "failed", "errors": "no"}, JobProgress(True, 0, failure="the provider does not say why")),
    ],
)
def test_odd_counts_and_errors_are_read_as_far_as_they_can_be(odd: dict[str, object], expected: JobProgress) -> None:
    with FailingServer((200, json.dumps({"id": "batch-0", "object": "batch"} | odd).encode()), 1) as server:
        assert OpenAIForm(server.url, KEY, VARIABLE).progress(JOB) == expected


def test_counts_that_are_no_numbers_may_pass() -> None:
    odd = b'{"id": "batch-0", "status": "in_progress", "request_counts": {"completed": "many"}}'
    with FailingServer((200, odd), 1) as server, pytest.raises(ConnectionError, match="the answer cannot be read"):
        OpenAIForm(server.url, KEY, VARIABLE).progress(JOB)


def test_an_answer_that_is_cut_off_may_pass() -> None:
    with (
        FailingServer((200, b'{"id": "batch-0", "obj'), 1) as server,
        pytest.raises(ConnectionError, match="the answer cannot be read"),
    ):
        OpenAIForm(server.url, KEY, VARIABLE).progress(JOB)


def test_answers_and_files_that_are_cut_off_are_asked_for_again(folder: Callable[[str], Path]) -> None:
    with FailingServer((200, b'{"id": "batch-0", "obj'), 2) as server:
        server.cuts = 2
        roles = local_roles(server.model())
        assert by_batches(roles, folder("run")) == by_calls(roles, folder("calls"))
        assert server.cuts == 0
