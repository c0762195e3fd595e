"""A batch server on loopback, in OpenAI's form, Anthropic's and Google's; it bills each answer at half price.

Answers come in another order than questions. Some lines are missing the first time, expire, or fail.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Self
from urllib.parse import parse_qs, urlsplit

from programs.lm.prices import Price, Tariff
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible
from tests.support.google_dialect import generated, google_line, operation
from tests.support.local_server import LocalServer
from tests.support.provider_families import as_openai

PRICE = Price(input=2.0, output=8.0, batch=Tariff(input=1.0, output=4.0, cached=0.25))

_KEY_HEADERS = ("Authorization", "x-api-key", "x-goog-api-key")
_ID = r"/((?:file|batch|msgbatch|op)-\d+)"

Fate = Callable[[str, int], str]
"""From a line's custom id, and how often it was submitted before, to `ok`, `missing`, `expired`, `failed` or `lost`."""


def always_ok(key: str, before: int) -> str:
    """Every line is answered."""
    return "ok"


def unlucky(seed: int) -> Fate:
    """About four of ten lines go wrong the first time."""

    def fate(key: str, before: int) -> str:
        draw = hashlib.sha256(f"{seed} {key}".encode()).digest()[0] % 10
        return "ok" if before else {0: "missing", 1: "expired", 2: "failed", 3: "lost"}.get(draw, "ok")

    return fate


@dataclass
class FakeBatch:
    """A job at the server.

    Attributes:
        lines: Custom id and body of each.
        looks: How often somebody asked how far it is.
        error: Code and message, if it failed as a whole.
    """

    id: str
    lines: list[tuple[str, Body]]
    metadata: dict[str, str] = field(default_factory=dict)
    file_id: str = ""
    status: str = "in_progress"
    looks: int = 0
    created: float = field(default_factory=time.time)
    output: bytes = b""
    errors: bytes = b""
    error: tuple[str, str] = ("", "")


class BatchServer:
    """A context manager: `with BatchServer() as server: server.url`.

    Args:
        fate: What becomes of each line.
        respond: From the body of a line to a `Reply`; default `sensible`.
        looks: How often it says that a job is at work before it has ended.

    Attributes:
        submitted: For each custom id, what became of it each time.
        bill: Dollars of all answers.
        files, batches: What it holds.
        requests: Number of requests so far.
        kill: Process to kill, number of the request at which, and whether after it was worked on; or None.
        interrupt_at_look: At which look at a job this process gets Ctrl-C; 0 for none.
        refuse_batches: Message with which every batch as a whole is refused, or empty.
        cuts: Of how many more files of answers in OpenAI's form the connection ends half way.
        most_at_work: Batches that it works on at a time; status 429 for more.
        most_enqueued: Lines that it works on at a time; batches in OpenAI's form with more are created, and then fail.
    """

    def __init__(self, fate: Fate = always_ok, respond: Callable[[Body], Reply] = sensible, looks: int = 1) -> None:
        self.fate = fate
        self.respond = respond
        self.looks = looks
        self.submitted: dict[str, list[str]] = defaultdict(list)
        self.bill = 0.0
        self.bodies: list[Body] = []
        self.files: dict[str, tuple[str, bytes, float]] = {}
        self.batches: dict[str, FakeBatch] = {}
        self.requests = 0
        self.paths: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.kill: tuple[int, int, bool] | None = None
        self.refuse_batches = ""
        self.cuts = 0
        self.most_at_work = 10**9
        self.most_enqueued = 10**9
        self.interrupt_at_look = 0
        self._chat = FakeOpenAI(respond)
        self._lock = threading.RLock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                self._serve(b"")

            def do_POST(self) -> None:
                self._serve(self.rfile.read(int(self.headers.get("Content-Length") or 0)))

            def _serve(self, body: bytes) -> None:
                with server._lock:
                    server.requests += 1
                    number = server.requests
                    server.keys.add(next(filter(None, map(self.headers.get, _KEY_HEADERS)), ""))
                    server._kill_at(number, after=False)
                    status, payload = server.serve(self.command, self.path, body)
                    server._kill_at(number, after=True)
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(payload)))
                    self.end_headers()
                    if server.cuts and self.path.endswith("/content"):
                        server.cuts -= 1
                        payload = payload[: len(payload) // 2]
                        self.close_connection = True
                    self.wfile.write(payload)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # a client that was killed on purpose

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._http = LocalServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    @property
    def google_url(self) -> str:
        """Base URL of the API in Google's form."""
        return f"{self.url}beta"

    def model(self, name: str = "fake") -> str:
        """The model string a role takes."""
        return f"{self.url}#{name}"

    def prices(self, path: Path, models: tuple[str, ...] = ()) -> Path:
        """A file with the prices of its model, in batches half of those of calls."""
        lines = "".join(
            f'"{model}" = {{ input = 2.0, output = 8.0, batch = {{ input = 1.0, output = 4.0, cached = 0.25 }} }}\n'
            for model in models or (self.model(),)
        )
        path.write_text(f'dated = 2026-01-01\nsource = "a test"\n[models]\n{lines}')
        return path

    def serve(self, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to a request."""
        address = urlsplit(path)
        name = re.sub(_ID, "/ID", address.path)
        self.paths[f"{method} {name}"] += 1
        at_work = sum(batch.status == "in_progress" for batch in self.batches.values())
        if method == "POST" and name.endswith(("/batches", ":batchGenerateContent")) and at_work >= self.most_at_work:
            return 429, json.dumps({"error": {"message": "too many batches at work"}}).encode()
        known = re.search(_ID, path)
        one = "" if known is None else known.group(1)
        if name.startswith("/v1beta/"):
            return self._google(f"{method} {name}", one, parse_qs(address.query), body)
        if name.startswith("/v1/messages"):
            return self._anthropic(f"{method} {name}", one, body)
        return self._openai(f"{method} {name}", one, body)

    def _openai(self, request: str, one: str, body: bytes) -> tuple[int, bytes]:
        match request:
            case "POST /v1/chat/completions":
                asked = json.loads(body)
                self.bodies.append(asked)
                reply = self.respond(asked)
                return reply.status, json.dumps(self._payload(asked, reply)).encode()
            case "POST /v1/files":
                return 200, json.dumps(self._file(self._uploaded(body))).encode()
            case "GET /v1/files":
                listed = [self._file(file_id) for file_id in reversed(self.files)]
                return 200, json.dumps({"object": "list", "data": listed, "has_more": False}).encode()
            case "GET /v1/files/ID/content":
                return 200, self.files[one][1]
            case "POST /v1/batches":
                return 200, json.dumps(self._batch(self._created(json.loads(body)))).encode()
            case "GET /v1/batches":
                listed = [self._batch(batch) for batch in reversed(self.batches.values())]
                return 200, json.dumps({"object": "list", "data": listed, "has_more": False}).encode()
            case "GET /v1/batches/ID":
                self._worked(self.batches[one])
                return 200, json.dumps(self._batch(self.batches[one])).encode()
            case "POST /v1/batches/ID/cancel":
                self._cancelled(self.batches[one])
                return 200, json.dumps(self._batch(self.batches[one])).encode()
            case _:
                return _no_such_route(request)

    def _anthropic(self, request: str, one: str, body: bytes) -> tuple[int, bytes]:
        match request:
            case "POST /v1/messages":
                self.bodies.append(json.loads(body))
                return 200, json.dumps(self._message(self.bodies[-1])).encode()
            case "POST /v1/messages/batches":
                lines = [(line["custom_id"], line["params"]) for line in json.loads(body)["requests"]]
                batch = FakeBatch(f"msgbatch-{len(self.batches)}", lines)
                self.batches[batch.id] = batch
                return 200, json.dumps(self._message_batch(batch)).encode()
            case "GET /v1/messages/batches":
                listed = [self._message_batch(batch) for batch in reversed(self.batches.values())]
                return 200, json.dumps({"data": listed, "has_more": False}).encode()
            case "GET /v1/messages/batches/ID":
                self._worked(self.batches[one])
                return 200, json.dumps(self._message_batch(self.batches[one])).encode()
            case "GET /v1/messages/batches/ID/results":
                return 200, self.batches[one].output
            case _:
                return _no_such_route(request)

    def _google(self, request: str, one: str, query: dict[str, list[str]], body: bytes) -> tuple[int, bytes]:
        batch = self.batches.get(one)
        if request.startswith("POST /v1beta/models/") and request.endswith(":generateContent"):
            asked = json.loads(body)
            self.bodies.append(asked)
            reply = self.respond(asked | as_openai(asked))
            return reply.status, json.dumps(generated(asked, reply)).encode()
        if request.startswith("POST /v1beta/models/") and request.endswith(":batchGenerateContent"):
            asked = json.loads(body)["batch"]
            requests = asked["inputConfig"]["requests"]["requests"]
            lines = [(line["metadata"]["key"], line["request"]) for line in requests]
            batch = FakeBatch(f"op-{len(self.batches)}", lines, {"displayName": asked["displayName"]})
            if self.refuse_batches:
                batch.status = "failed"
            self.batches[batch.id] = batch
        elif request == "GET /v1beta/batches":
            # Oldest first, so that nobody finds what is sought on the first page.
            size, start = int(query["pageSize"][0]), int(query.get("pageToken", ["0"])[0])
            listed = [operation(one, self.refuse_batches) for one in self.batches.values()]
            page = {"operations": listed[start : start + size]}
            more = {"nextPageToken": str(start + size)} if start + size < len(listed) else {}
            return 200, json.dumps(page | more).encode()
        elif request == "POST /v1beta/batches/ID:cancel" and batch is not None:
            self._cancelled(batch)
            return 200, b"{}"
        elif request == "GET /v1beta/batches/ID" and batch is not None:
            self._worked(batch)
        if batch is None:
            return _no_such_route(request)
        return 200, json.dumps(operation(batch, self.refuse_batches)).encode()

    def _uploaded(self, body: bytes) -> str:
        # The two parts of a form: the purpose, and the file with its name.
        name = re.search(rb'filename="([^"]+)"', body)
        assert name is not None and b'name="purpose"' in body and b"\r\nbatch\r\n" in body
        content = body[name.end() :].partition(b"\r\n\r\n")[2].partition(b"\r\n--")[0]
        return self._kept(name.group(1).decode(), content)

    def _kept(self, name: str, content: bytes) -> str:
        file_id = f"file-{len(self.files)}"
        self.files[file_id] = name, content, time.time()
        return file_id

    def _file(self, file_id: str) -> Body:
        name, content, created = self.files[file_id]
        return {
            "id": file_id,
            "object": "file",
            "bytes": len(content),
            "created_at": int(created),
            "filename": name,
            "purpose": "batch",
            "status": "processed",
        }

    def _created(self, asked: Body) -> FakeBatch:
        assert asked["endpoint"] == "/v1/chat/completions" and asked["completion_window"] == "24h"
        parsed = [json.loads(line) for line in self.files[asked["input_file_id"]][1].splitlines()]
        assert all(line["url"] == asked["endpoint"] and line["method"] == "POST" for line in parsed)
        lines = [(line["custom_id"], line["body"]) for line in parsed]
        batch = FakeBatch(f"batch-{len(self.batches)}", lines, asked["metadata"], asked["input_file_id"])
        enqueued = sum(len(other.lines) for other in self.batches.values() if other.status == "in_progress")
        if enqueued + len(lines) > self.most_enqueued:
            batch.error = "token_limit_exceeded", "Enqueued token limit reached for fake in organization o."
        if self.refuse_batches:
            batch.error = "x", self.refuse_batches
        if batch.error[0]:
            batch.status = "failed"
        self.batches[batch.id] = batch
        return batch

    def _worked(self, batch: FakeBatch) -> None:
        """Every look brings a job closer to its end."""
        batch.looks += 1
        if batch.looks == self.interrupt_at_look:
            os.kill(os.getpid(), signal.SIGINT)
        if batch.status != "in_progress" or batch.looks <= self.looks:
            return
        batch.status = "completed"
        output, errors = [], []
        for key, body in sorted(batch.lines, key=lambda line: line[0][::-1]):
            fate = self.fate(key, len(self.submitted[key]))
            self.submitted[key].append(fate)
            if fate == "ok":
                output.append(self._answered(key, body, batch))
            elif fate in ("failed", "lost"):
                output.append(self._gone_wrong(key, fate, batch))
            elif fate == "expired":
                errors.append(self._expired(key, batch))
        batch.output, batch.errors = (b"".join(line + b"\n" for line in lines) for lines in (output, errors))
        if not batch.id.startswith("batch"):
            batch.output += batch.errors

    def _cancelled(self, batch: FakeBatch) -> None:
        if batch.status == "in_progress":
            batch.status = "cancelled"

    def _answered(self, key: str, body: Body, batch: FakeBatch) -> bytes:
        self.bodies.append(body)
        if batch.id.startswith("msgbatch"):
            message = self._message(body)
            self.bill += PRICE.usd(message["usage"]["input_tokens"], message["usage"]["output_tokens"], batch=True)
            return json.dumps({"custom_id": key, "result": {"type": "succeeded", "message": message}}).encode()
        if batch.id.startswith("op"):
            return self._generated(key, body)
        reply = self.respond(body)
        payload = self._payload(body, reply)
        if reply.status != 200:
            self.submitted[key][-1] = "refused"
        else:
            usage = payload["usage"]
            self.bill += PRICE.usd(usage["prompt_tokens"], usage["completion_tokens"], batch=True)
        response = {"status_code": reply.status, "request_id": "r", "body": payload}
        return json.dumps({"id": "l", "custom_id": key, "response": response, "error": None}).encode()

    def _payload(self, body: Body, reply: Reply) -> Body:
        payload = self._chat._payload(body, reply)
        if reply.status == 200 and not reply.content:  # cut off while it was thinking
            payload["choices"][0]["finish_reason"] = "length"
        return payload

    def _message(self, body: Body) -> Body:
        texts = as_openai(body)
        reply = self.respond(texts)
        tokens_in = sum(len(one["content"]) for one in texts["messages"]) // 4
        return {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "model": body["model"],
            "content": [{"type": "text", "text": reply.content}],
            "stop_reason": "end_turn",
            "usage": {"input_tokens": tokens_in, "output_tokens": max(1, len(reply.content) // 4)},
        }

    def _generated(self, key: str, body: Body) -> bytes:
        answer = generated(body, self.respond(body | as_openai(body)))
        if "error" in answer:
            self.submitted[key][-1] = "refused"
        else:
            usage = answer["usageMetadata"]
            written = usage["candidatesTokenCount"] + usage["thoughtsTokenCount"]
            self.bill += PRICE.usd(usage["promptTokenCount"], written, usage["cachedContentTokenCount"], batch=True)
        return google_line(key, answer)

    def _gone_wrong(self, key: str, fate: str, batch: FakeBatch) -> bytes:
        if batch.id.startswith("op"):
            return google_line(key, code=13 if fate == "failed" else None)
        if batch.id.startswith("msgbatch"):
            error = {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}}
            return json.dumps({"custom_id": key, "result": {"type": "errored", "error": error}}).encode()
        response = {
            "status_code": 500 if fate == "failed" else 0,
            "request_id": "r",
            "body": {"error": {"message": "x"}},
        }
        return json.dumps({"id": "l", "custom_id": key, "response": response, "error": None}).encode()

    def _expired(self, key: str, batch: FakeBatch) -> bytes:
        if batch.id.startswith("op"):
            return google_line(key, code=1)
        if batch.id.startswith("msgbatch"):
            return json.dumps({"custom_id": key, "result": {"type": "expired"}}).encode()
        error = {"code": "batch_expired", "message": "This request could not be executed before it expired."}
        return json.dumps({"id": "l", "custom_id": key, "response": None, "error": error}).encode()

    def _batch(self, batch: FakeBatch) -> Body:
        done = batch.status == "completed"
        body: Body = {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "input_file_id": batch.file_id,
            "completion_window": "24h",
            "status": batch.status,
            "created_at": int(batch.created),
            "metadata": batch.metadata,
            "request_counts": {"total": len(batch.lines), "completed": len(batch.lines) if done else 0, "failed": 0},
        }
        if batch.status == "failed":
            code, message = batch.error
            body["errors"] = {"object": "list", "data": [{"code": code, "message": message, "line": 1}]}
        for name, content in (("output_file_id", batch.output), ("error_file_id", batch.errors)):
            if content:
                known = [file_id for file_id, file in self.files.items() if file[0] == f"{name}-{batch.id}"]
                body[name] = known[0] if known else self._kept(f"{name}-{batch.id}", content)
        return body

    def _message_batch(self, batch: FakeBatch) -> Body:
        ended = batch.status == "completed"
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        counts["succeeded" if ended else "processing"] = len(batch.lines)
        created = time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(batch.created))
        status = "ended" if ended else "in_progress"
        return {"id": batch.id, "processing_status": status, "request_counts": counts, "created_at": created}

    def _kill_at(self, number: int, after: bool) -> None:
        if self.kill is not None and self.kill[1:] == (number, after):
            os.kill(self.kill[0], signal.SIGKILL)

    def paid_twice(self) -> list[str]:
        """Custom ids that were submitted again although they had been answered, or were at work."""
        again = [key for key, fates in self.submitted.items() if "ok" in fates[:-1]]
        begun = [batch for batch in self.batches.values() if batch.status != "failed"]
        keys = Counter(key for batch in begun for key, _ in batch.lines)
        return again + [key for key, times in keys.items() if times != len(self.submitted[key])]

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def _no_such_route(request: str) -> tuple[int, bytes]:
    return 404, json.dumps({"error": {"message": f"no such route: {request}"}}).encode()
