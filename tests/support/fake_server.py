"""An OpenAI-compatible server on loopback that answers by rule, counts what it served, and can misbehave on cue."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from tests.support.local_server import LocalServer

Body = dict[str, Any]


@dataclass
class Reply:
    """What the server sends.

    Attributes:
        content: The assistant's text.
        status: HTTP status; other than 200, `content` is the error message.
        headers: Extra headers, e.g. Retry-After.
        logprobs: OpenAI-shaped `logprobs.content`, or None.
        seconds: How long to wait first.
        raw: Sent instead of a well-formed body, if given.
        wire: Takes over the connection instead, if given.
    """

    content: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    logprobs: list[dict[str, Any]] | None = None
    seconds: float = 0.0
    raw: bytes | None = None
    wire: Callable[[socket.socket], None] | None = None


def last_user(body: Body) -> str:
    """The request proper: the last user message, without the worked examples before it."""
    return next(m["content"] for m in reversed(body["messages"]) if m["role"] == "user")


def digest(*parts: str) -> int:
    """A number that depends on the texts alone."""
    return int(hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:12], 16)


def letters(text: str) -> list[float]:
    """A vector that can be worked out by hand: how often a, b and c occur, and 1."""
    return [float(text.count(letter)) for letter in "abc"] + [1.0]


def likelihoods(prompt: str) -> list[tuple[str, float]]:
    """Words with the space before them, and a log-probability that is larger where the word has occurred before."""
    listed: list[tuple[str, float]] = []
    for token in re.findall(r"\s*\S+|\s+", prompt):
        word = token.strip(" \n;:,.").lower()
        seen = any(word == other.strip(" \n;:,.").lower() for other, _ in listed)
        before = "".join(other for other, _ in listed)
        listed.append((token, (-0.5 if seen else -1.0 - digest(word) % 97 / 10) - digest(before, word) % 13 / 100))
    return listed


def _beside_chat(body: Body) -> Sequence[Any]:
    if "input" in body:
        return [letters(text) for text in body["input"]]
    if "documents" in body:
        return [digest(body["query"], document) % 1000 / 1000 for document in body["documents"]]
    return likelihoods(body["prompt"])


def sensible(body: Body) -> Reply:
    """A valid, deterministic answer to every question this project asks, told apart by the output fields.

    To a question of another route than chat, the content is a JSON list: a vector for each text, a score for each
    document, or a token and its log-probability for each word of a prompt.
    """
    if "messages" not in body:
        return Reply(json.dumps(_beside_chat(body)))
    prompt = last_user(body)
    system = body["messages"][0]["content"]
    asked = f"{system}\n{prompt}"
    if "Rating:" in prompt:
        digit = 1 + digest(prompt) % 5
        second = 1 + digit % 5
        rest = -1.6 - digest(prompt) % 97 / 500
        top = [{"token": str(digit), "logprob": -0.3}, {"token": str(second), "logprob": rest}]
        return Reply(str(digit), logprobs=[{"token": str(digit), "logprob": -0.3, "top_logprobs": top}])
    if "Choice:" in prompt:
        labels = re.findall(r"^([A-Za-z]): ", prompt, re.MULTILINE)
        listed = [{"token": label, "logprob": -0.5 - digest(label, prompt) % 97 / 10} for label in labels]
        first = max(listed, key=lambda one: one["logprob"])
        return Reply(first["token"], logprobs=[{**first, "top_logprobs": listed}])
    if "`motivations`" in asked:
        names = ["enjoyment", "learning", "durability", "value", "aesthetics"]
        start = digest(prompt) % len(names)
        drafts = [
            {
                "dimension": names[(start + n) % len(names)],
                "description": f"wants reason {n} of many",
                "strength": strength,
                "evidence": [1],
            }
            for n, strength in enumerate(["strong", "weak"])
        ]
        needs = {"needs": [{"kind": "more of the same kind", "evidence": [1]}]} if "`needs`" in asked else {}
        return Reply(json.dumps({"motivations": drafts} | needs))
    if "reassessments" in asked:
        return Reply(json.dumps({"reassessments": [{"number": 1, "action": "keep", "description": ""}]}))
    if "`traits`" in asked:
        words = re.findall(r"[A-Za-z]{4,}", prompt.split("]]")[-1])[:6] or ["plain"]
        uses = {"occasions": ["rainy days"], "users": ["collectors"]} if "`occasions`" in asked else {}
        return Reply(json.dumps({"traits": [f"good for {word.lower()}" for word in words[:3]]} | uses))
    if "ranking" in asked:
        labels = [int(n) for n in re.findall(r"^(\d\d): ", prompt, re.MULTILINE)]
        return Reply(json.dumps({"ranking": sorted(labels, key=lambda n: digest(str(n), prompt))}))
    if "faithful" in asked:
        verdict = "no" if digest(prompt) % 4 == 0 else "yes"
        return Reply(json.dumps({"faithful": verdict, "why": "supported" if verdict == "yes" else "not given"}))
    return Reply(json.dumps({"reason": "Its traits answer what this shopper wants."}))


def echoed(body: Body, answers: Sequence[Sequence[Any]], usage: Body) -> Body:
    """As vLLM does: a token for the beginning of the text, those of the prompt, and one that was written."""
    listed = [["<s>", None], *answers, [" more", -0.1]]
    tokens = [token for token, _ in listed]
    starts = [sum(map(len, tokens[:place])) for place in range(len(tokens))]
    logprobs = {"tokens": tokens, "text_offset": starts, "token_logprobs": [value for _, value in listed]}
    choice = {"index": 0, "text": f"{body['prompt']} more", "logprobs": logprobs, "finish_reason": "length"}
    usage = usage | {"completion_tokens": 1, "total_tokens": usage["prompt_tokens"] + 1}
    return {"id": "x", "object": "text_completion", "model": body["model"], "choices": [choice], "usage": usage}


class FakeOpenAI:
    """A context manager: `with FakeOpenAI() as server: server.url`.

    Args:
        respond: From the request body to a `Reply`; default `sensible`.

    Attributes:
        bodies: Every request body served, in order of arrival.
        raw: The bytes of each.
        paths: The path of each.
        keys: The Authorization header of each, or that of Anthropic's API.
        tokens_in, tokens_out: Sums of the usage it reported for answers with status 200.
    """

    def __init__(self, respond: Callable[[Body], Reply] = sensible) -> None:
        self.respond = respond
        self.bodies: list[Body] = []
        self.raw: list[bytes] = []
        self.paths: list[str] = []
        self.keys: list[str] = []
        self.tokens_in = self.tokens_out = 0
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Header and body are two segments: if the second waits for the first's acknowledgement, that takes 40 ms.
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                body = json.loads(raw)
                with fake._lock:
                    fake.bodies.append(body)
                    fake.raw.append(raw)
                    fake.paths.append(self.path)
                    fake.keys.append(self.headers.get("Authorization") or self.headers.get("x-api-key", ""))
                reply = fake.respond(body)
                time.sleep(reply.seconds)
                if reply.wire is not None:
                    self.close_connection = True
                    with suppress(OSError):
                        reply.wire(self.connection)
                    return
                payload = reply.raw if reply.raw is not None else json.dumps(fake._payload(body, reply)).encode()
                try:
                    self.send_response(reply.status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Content-Length", str(len(payload)))
                    for name, value in reply.headers.items():
                        self.send_header(name, value)
                    self.end_headers()
                    self.wfile.write(payload)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # a client that was killed on purpose

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = LocalServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def model(self, name: str = "fake") -> str:
        """The model string a role takes."""
        return f"{self.url}#{name}"

    def _payload(self, body: Body, reply: Reply) -> Body:
        if reply.status != 200:
            return {"error": {"message": reply.content or "no", "type": "fake", "code": None}}
        if "messages" not in body:
            return self._routed(body, json.loads(reply.content))
        tokens_in = sum(len(m["content"]) for m in body["messages"]) // 4
        tokens_out = max(1, len(reply.content) // 4)
        with self._lock:
            self.tokens_in += tokens_in
            self.tokens_out += tokens_out
        choice: Body = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": reply.content}}
        if reply.logprobs is not None and body.get("logprobs"):
            choice["logprobs"] = {"content": reply.logprobs}
        usage = {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}
        head = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
        return {**head, "choices": [choice], "usage": usage}

    def _routed(self, body: Body, answers: list[Any]) -> Body:
        """Vectors in reverse order, scores with the highest first, or words of a prompt, as servers give them."""
        tokens = len(json.dumps(body)) // 4
        with self._lock:
            self.tokens_in += tokens
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        if "prompt" in body:
            return echoed(body, answers, usage)
        if "input" in body:
            data = [{"object": "embedding", "index": i, "embedding": vector} for i, vector in enumerate(answers)]
            return {"object": "list", "data": data[::-1], "model": body["model"], "usage": usage}
        results = [{"index": i, "relevance_score": score} for i, score in enumerate(answers) if score is not None]
        results.sort(key=lambda entry: -entry["relevance_score"])
        return {"id": "x", "model": body["model"], "results": results, "usage": {"total_tokens": tokens}}

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def replying(*replies: Reply) -> FakeOpenAI:
    """A server that sends these replies first and answers sensibly from then on."""
    left = list(replies)
    return FakeOpenAI(lambda body: left.pop(0) if left else sensible(body))


def answering(**rules: Callable[[Body], Any]) -> FakeOpenAI:
    """A server with a rule for some of the output fields that it is asked for; it answers sensibly for the others.

    Args:
        rules: From the request body to a `Reply`, or to the value of that field.
    """

    def respond(body: Body) -> Reply:
        for name, rule in rules.items() if "messages" in body else ():
            if f"JSON: {name}" in last_user(body):
                answer = rule(body)
                return answer if isinstance(answer, Reply) else Reply(json.dumps({name: answer}))
        return sensible(body)

    return FakeOpenAI(respond)
