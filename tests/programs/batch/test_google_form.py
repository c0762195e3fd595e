"""Google's batch interface: what is sent, and what is made of odd and hostile answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from threading import Thread
from typing import Any

import dspy
import pytest
from dspy.lm15 import Message, Request, TextPart

from programs.batch.google_form import GoogleForm, google_answer
from programs.batch.job_files import account_of
from programs.batch.job_table import JobRow
from programs.batch.line_answers import judge
from programs.batch.provider import AnswerLine
from programs.batch.question import BatchQuestion, without_messages
from programs.lm.prices import Price
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import RoleConfig
from programs.runtime.errors import InputError
from tests.support.batch_server import BatchServer, FakeBatch
from tests.support.batch_sessions import RolesOn, by_batches, paid_calls
from tests.support.fake_server import Body, Reply, sensible
from tests.support.local_server import LocalServer

MODEL, KEY, VARIABLE = "gemini/gemini-3.8-flash", "AIza-canary-0123456789", "GEMINI_API_KEY"
QUESTION = BatchQuestion(
    key="a" * 64,
    role="mar",
    config=RoleConfig(model=MODEL),
    model=MODEL,
    about="",
    url="https://host/v1beta/models/gemini-3.8-flash:generateContent",
    body=json.dumps({"contents": [{"role": "user", "parts": [{"text": "a\u2028b"}]}]}),
    form="",
    request=without_messages(Request(model="gemini-3.8-flash", messages=(Message("user", (TextPart("hi"),)),))),
    tokens_in=100,
    tokens_out=100,
    most_usd=0.5,
)
SPOKEN = {"candidates": [{"content": {"role": "model", "parts": [{"text": "4"}]}, "finishReason": "STOP"}]}

Serve = Callable[[str, str], tuple[int, Body | bytes]]
"""From method and path of a request to status and answer."""

ELSEWHERE = "location"
"""Field of an answer with the address that it redirects to."""


def job_of(path: Path, address: str) -> JobRow:
    """A job of one line, whose creation was begun."""
    path.write_bytes(GoogleForm(address, KEY, VARIABLE).line(QUESTION) + b"\n")
    return JobRow(
        id="job-0",
        owner="",
        provider="google",
        address=address,
        model=MODEL,
        key_variable=None,
        path=str(path),
        sha256="",
        lines=1,
        most_usd=None,
        price=None,
        state="creating",
        file_id="",
        batch_id="batches/op-0",
        written=0.0,
        submitted=None,
        answered=0,
    )


@pytest.fixture
def served() -> Iterator[Callable[[Serve], str]]:
    """From a rule to the address of a server that answers by it."""
    servers = []

    def start(serve: Serve) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer = serve(self.command, self.path)
                payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                self.send_response(status)
                if isinstance(answer, dict) and ELSEWHERE in answer:
                    self.send_header("Location", answer[ELSEWHERE])
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = LocalServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_address[1]}/v1beta"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def answers_in(shown: Body | bytes, served: Callable[[Serve], str], path: Path) -> list[AnswerLine]:
    """The lines that are read in an operation."""
    address = served(lambda method, path: (200, shown))
    return [*GoogleForm(address, KEY, VARIABLE).answers(job_of(path, address))]


def inlined(*items: object) -> Body:
    return {"name": "batches/op-0", "done": True, "response": {"inlinedResponses": {"inlinedResponses": [*items]}}}


def test_a_job_is_one_request_with_the_hash_in_its_name(tmp_path: Path) -> None:
    with BatchServer() as server:
        form = GoogleForm(server.google_url, KEY, VARIABLE)
        job = job_of(tmp_path / "job.jsonl", server.google_url)
        assert form.create(job) == "batches/op-0"
        assert server.paths == {"POST /v1beta/models/gemini-3.8-flash:batchGenerateContent": 1}
        assert server.batches["op-0"].lines == [(QUESTION.key, json.loads(QUESTION.body))]
        assert server.batches["op-0"].metadata == {"displayName": "mllm3rec-job-0"}
        assert form.upload(job) == ""
        assert form.find(replace(job, state="uploaded"), ()) is None
        assert form.find(job, ()) == "batches/op-0"
        assert form.find(job, {"batches/op-0"}) is None
        assert not form.progress(job).ended
        form.cancel(job)
        assert form.progress(job).ended
        assert [*form.answers(job)] == []
    assert server.keys == {KEY}


def test_the_address_is_that_of_the_call() -> None:
    assert account_of(QUESTION) == ("https://host/v1beta", MODEL, "")


def test_a_batch_is_found_on_any_page(tmp_path: Path) -> None:
    with BatchServer() as server:
        job = job_of(tmp_path / "job.jsonl", server.google_url)
        form = GoogleForm(server.google_url, KEY, VARIABLE)
        for number in range(12):
            server.batches[f"op-{number}"] = FakeBatch(f"op-{number}", [], {"displayName": f"theirs {number}"})
        assert form.find(job, ()) is None
        assert form.create(job) == "batches/op-12"
        assert form.find(job, ()) == "batches/op-12"
        assert server.paths["GET /v1beta/batches"] == 6


def test_a_batch_with_a_name_of_another_form_is_not_created_again(
    served: Callable[[Serve], str], tmp_path: Path
) -> None:
    theirs = {"name": "batches/../files/x", "metadata": {"displayName": "mllm3rec-job-0"}}
    address = served(lambda method, path: (200, {"operations": [theirs]} if method == "GET" else theirs))
    form, job = GoogleForm(address, KEY, VARIABLE), job_of(tmp_path / "job.jsonl", address)
    for step in (form.create, lambda job: form.find(job, ())):
        with pytest.raises(ConnectionError, match="a name of another form"):
            step(job)


def test_a_list_without_an_end(served: Callable[[Serve], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("programs.batch.google_form._MOST_PAGES", 3)
    address = served(lambda method, path: (200, {"nextPageToken": "more"}))
    with pytest.raises(ConnectionError, match="without an end"):
        GoogleForm(address, KEY, VARIABLE).find(job_of(tmp_path / "job.jsonl", address), ())


@pytest.mark.parametrize(
    ("error", "status", "name"),
    [
        ({"code": 3, "message": "x"}, 400, "INVALID_ARGUMENT"),
        ({"code": 8, "message": "x"}, 429, "RESOURCE_EXHAUSTED"),
        ({"code": 14}, 503, "UNAVAILABLE"),
        ({"code": 429, "status": "RESOURCE_EXHAUSTED"}, 429, "RESOURCE_EXHAUSTED"),
        ({"code": 10**30}, 500, "UNKNOWN"),
        ({"code": ["x"], "status": {}}, 500, "UNKNOWN"),
        ({"message": "x"}, 500, "UNKNOWN"),
        ({"code": 1}, 0, ""),
        ({}, 0, ""),
        ("text", 0, ""),
    ],
)
def test_the_error_of_a_line_is_that_of_a_call(error: object, status: int, name: str) -> None:
    line = google_answer({"metadata": {"key": "k"}, "error": error})
    assert line is not None
    assert (line.key, line.status) == ("k", status)
    assert json.loads(line.body)["error"]["status"] == name


@pytest.mark.parametrize("item", [None, 7, [], "x", {}, {"metadata": 1}, {"metadata": {"key": 7}}, {"key": ["k"]}])
def test_an_answer_without_a_key_is_left_out(item: object) -> None:
    assert google_answer(item) is None


@pytest.mark.parametrize(
    "shown",
    [
        inlined({"metadata": {"key": "k"}, "response": SPOKEN}, None, "x", {"response": SPOKEN}),
        {"metadata": {"state": "JOB_STATE_SUCCEEDED", "output": inlined({"key": "k", "response": SPOKEN})["response"]}},
        {"done": True, "response": {"inlinedResponses": [{"key": "k", "response": SPOKEN}]}},
    ],
)
def test_answers_in_all_their_places(shown: Body, served: Callable[[Serve], str], tmp_path: Path) -> None:
    (line,) = answers_in(shown, served, tmp_path / "job.jsonl")
    assert (line.key, line.status, json.loads(line.body)) == ("k", 200, SPOKEN)


def test_answers_in_a_file(served: Callable[[Serve], str], tmp_path: Path) -> None:
    asked = []

    def serve(method: str, path: str) -> tuple[int, Body]:
        asked.append(path)
        if "files" in path:
            return 200, {"key": "k", "response": SPOKEN}
        return 200, {"done": True, "response": {"responsesFile": "files/batch-x_1"}}

    address = served(serve)
    (line,) = GoogleForm(address, KEY, VARIABLE).answers(job_of(tmp_path / "job.jsonl", address))
    assert (line.key, line.status) == ("k", 200)
    assert asked == ["/v1beta/batches/op-0", "/v1beta/files/batch-x_1:download?alt=media"]


@pytest.mark.parametrize(
    "shown",
    [
        {"done": True, "metadata": {"state": "BATCH_STATE_SUCCEEDED"}},
        {"done": True, "response": {"responsesFile": "https://elsewhere.example/files/x"}},
        {"done": True, "response": {"responsesFile": "files/../batches"}},
        {"done": True, "response": {"inlinedResponses": 7}},
    ],
)
def test_answers_that_are_not_there_are_not_asked_again(
    shown: Body, served: Callable[[Serve], str], tmp_path: Path
) -> None:
    with pytest.raises(ConnectionError, match="cannot be read"):
        answers_in(shown, served, tmp_path / "job.jsonl")


@pytest.mark.parametrize(
    ("metadata", "more", "expected"),
    [
        ({"state": "BATCH_STATE_PENDING"}, {}, (False, 0, "")),
        ({"state": "BATCH_STATE_RUNNING", "batchStats": {"successfulRequestCount": "1"}}, {}, (False, 1, "")),
        ({"state": "BATCH_STATE_RUNNING", "batchStats": {"successfulRequestCount": 10**300}}, {}, (False, 0, "")),
        ({"state": "BATCH_STATE_RUNNING", "batchStats": {"failedRequestCount": [1]}}, {}, (False, 0, "")),
        ({"state": 7, "batchStats": "x"}, {"done": "yes"}, (False, 0, "")),
        ({"state": "BATCH_STATE_EXPIRED"}, {"error": {"code": 4}}, (True, 0, "")),
        ({"state": "JOB_STATE_PARTIALLY_SUCCEEDED"}, {}, (True, 0, "")),
        ({"state": "BATCH_STATE_FAILED"}, {"error": {"code": 8, "message": "quota"}}, (True, 0, "quota")),
        ({"state": "BATCH_STATE_FAILED"}, {"error": 7}, (True, 0, "the provider does not say why")),
        ({"state": "BATCH_STATE_FAILED"}, inlined(), (True, 0, "")),
        ("x", {"done": True}, (True, 0, "")),
    ],
)
def test_how_far_a_job_is(
    metadata: object, more: Body, expected: object, served: Callable[[Serve], str], tmp_path: Path
) -> None:
    address = served(lambda method, path: (200, {"name": "batches/op-0", "metadata": metadata, **more}))
    progress = GoogleForm(address, KEY, VARIABLE).progress(job_of(tmp_path / "job.jsonl", address))
    assert (progress.ended, progress.answered, progress.failure) == expected


@pytest.mark.parametrize(
    ("status", "reason", "kind", "said"),
    [
        (302, "", InputError, "redirects are never followed"),
        (400, "API_KEY_INVALID", InputError, f"set the environment variable {VARIABLE}"),
        (400, "", InputError, "the batch was refused"),
        (404, "", InputError, "leave out --via batch"),
        (429, "", ConnectionError, "HTTP 429"),
    ],
)
def test_the_key_goes_nowhere_else(
    status: int, reason: str, kind: type[Exception], said: str, served: Callable[[Serve], str], tmp_path: Path
) -> None:
    followed: list[str] = []

    def elsewhere(method: str, path: str) -> tuple[int, Body]:
        followed.append(path)
        return 200, inlined()

    # So long that the message is cut in the middle of the key.
    error = {"reason": reason, "message": "x" * 235 + f" the key {KEY} " + "x" * 999}
    answer = {"error": error, ELSEWHERE: served(elsewhere)}
    address = served(lambda method, path: (status, answer))
    form, job = GoogleForm(address, KEY, VARIABLE), job_of(tmp_path / "job.jsonl", address)
    for step in (form.create, form.progress, form.cancel, lambda job: [*form.answers(job)]):
        with pytest.raises(kind, match=said) as caught:
            step(job)
        assert KEY[:12] not in str(caught.value)
    assert followed == []


def test_an_answer_without_an_end(
    served: Callable[[Serve], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("programs.batch.job_requests.MOST_BYTES_OF_BODY", 1 << 20)
    with pytest.raises(InputError, match="larger than 1 MB"):
        answers_in(inlined("x" * (2 << 20)), served, tmp_path / "job.jsonl")


def test_a_key_in_an_answer_is_taken_out(served: Callable[[Serve], str], tmp_path: Path) -> None:
    echoed = {"metadata": {"key": "k"}, "response": {"text": f"your key is {KEY}"}}
    (line,) = answers_in(inlined(echoed), served, tmp_path / "job.jsonl")
    assert KEY.encode() not in line.body and b"[key]" in line.body


HOSTILE: list[Any] = [
    *(7, "x", [], {}, {"candidates": 7}, {"candidates": {"a": 1}}, {"candidates": [{"content": {"parts": 7}}]}),
    {"candidates": [{"content": {"parts": [{"text": None}]}}]},
    {"candidates": [{"content": {"parts": [{"text": "\ud800"}]}}]},
    *(
        {**SPOKEN, "usageMetadata": {"promptTokenCount": count, "candidatesTokenCount": count}}
        for count in (-5, "7", 1.5, 1e308, float("inf"), 10**30, True, None, [1])
    ),
    {**SPOKEN, "usageMetadata": {"promptTokenCount": 3, "candidatesTokenCount": 1, "cachedContentTokenCount": 10**9}},
    {**SPOKEN, "usageMetadata": "x"},
    {"promptFeedback": {"blockReason": "SAFETY"}},
]


@pytest.mark.parametrize("body", HOSTILE, ids=str)
def test_a_hostile_answer_costs_at_most_its_upper_estimate(
    body: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, KEY)
    line = google_answer({"metadata": {"key": QUESTION.key}, "response": body})
    assert line is not None
    judged = judge(QUESTION, line, "job/0", Price(input=1.0, output=1.0))
    assert judged.end.call is not None
    before = dspy.cache
    cache = use_response_cache(tmp_path / "calls.sqlite")
    try:
        assert 0 <= (judged.end.call.usd or 0.0) + (judged.end.call.most_usd or 0.0) <= 0.5
        if judged.kept is not None:
            cache.keep({line.key: (judged.kept, None)})
    finally:
        cache.close()
        dspy.cache = before


def test_a_number_of_any_length_spoils_one_line_only(served: Callable[[Serve], str], tmp_path: Path) -> None:
    huge = {**SPOKEN, "usageMetadata": {"promptTokenCount": "HUGE"}}
    shown = inlined({"key": "a", "response": huge}, {"key": "b", "response": SPOKEN})
    raw = json.dumps(shown).replace('"HUGE"', "9" * 5000).encode()
    assert [line.key for line in answers_in(raw, served, tmp_path / "job.jsonl")] == ["a", "b"]


def test_a_parameter_that_is_refused_is_left_out_in_the_next_wave(
    folder: Callable[[str], Path], google: RolesOn
) -> None:
    def old(body: Body) -> Reply:
        thinks = "thinkingConfig" in body["generationConfig"]
        return Reply("thinking is not supported", status=400) if thinks else sensible(body)

    with BatchServer(respond=old) as server:
        rows = by_batches(google(server), folder("run"))
        assert server.paid_twice() == []
        refused = [key for key, fates in server.submitted.items() if fates == ["refused", "ok"]]
        assert 0 < len(refused) < len(server.submitted)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert {call.failed for call in paid_calls(folder("run"))} == {True, False}
