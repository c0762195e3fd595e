"""Servers that fail, each in one way: what they send instead of an answer, or around one."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.support.compile_setup import sensitive
from tests.support.fake_server import Body, Reply, last_user
from tests.support.flaky_server import FlakyOpenAI

Respond = Callable[[Body], Reply]
ASKED_FIRST = 3
"""Questions that a server fails which is well when it is asked again."""

SLOW = 0.25
"""Seconds to an answer of a slow server."""

LONG = 5_000_000
"""Characters of an answer of megabytes."""


@dataclass(frozen=True)
class Fault:
    """One way to fail.

    Attributes:
        respond: From the server to its answers.
        says: Pattern of words of the server, or about it, that a command which fails has to show.
        ranker: Program that asks the questions which the fault is about.
        options: Further options of the command.
        begins: What happens to the server before the command begins.
    """

    respond: Callable[[FlakyOpenAI], Respond]
    says: str = ""
    ranker: str = "listwise"
    options: tuple[object, ...] = ()
    begins: Callable[[FlakyOpenAI], None] = lambda server: None


def every(reply: Reply, **more: Any) -> Fault:
    """The same reply to everything."""
    return Fault(lambda server: lambda body: reply, **more)


def at_first(reply: Reply, times: int = ASKED_FIRST) -> Fault:
    """The reply to the first requests; then answers."""

    def respond(server: FlakyOpenAI) -> Respond:
        left = [reply] * times
        return lambda body: left.pop() if left else sensitive(body)

    return Fault(respond)


def where(asked: Callable[[Body], bool], reply: Reply, **more: Any) -> Fault:
    """The reply to some questions; answers to the others."""
    return Fault(lambda server: lambda body: reply if asked(body) else sensitive(body), **more)


def about_one(field: str, reply: Reply) -> Fault:
    """The reply to all questions like the first one for an output field: to those about one item, or one user."""

    def respond(server: FlakyOpenAI) -> Respond:
        first: list[str] = []

        def answered(body: Body) -> Reply:
            about = last_user(body)
            if f"JSON: {field}" in about and not first:
                first.append(about)
            return reply if about in first else sensitive(body)

        return answered

    return Fault(respond)


def reworded(change: Callable[[str], str], **more: Any) -> Fault:
    """Good answers with something around them, or in them."""

    def respond(body: Body) -> Reply:
        good = sensitive(body)
        return Reply(change(good.content), logprobs=good.logprobs)

    return Fault(lambda server: respond, **more)


def ranked(change: Callable[[list[int]], list[Any]]) -> Fault:
    """Good answers, but with other rankings."""

    def respond(body: Body) -> Reply:
        good = sensitive(body)
        answer = json.loads(good.content) if good.content.startswith("{") else {}
        return Reply(json.dumps({"ranking": change(answer["ranking"])})) if "ranking" in answer else good

    return Fault(lambda server: respond)


def rebodied(change: Callable[[dict[str, Any]], object], **more: Any) -> Fault:
    """Good answers in an odd body."""

    def respond(server: FlakyOpenAI) -> Respond:
        def answered(body: Body) -> Reply:
            payload = server._payload(body, sensitive(body))
            change(payload)
            return Reply(raw=json.dumps(payload).encode())

        return answered

    return Fault(respond, **more)


def with_usage(usage: object) -> Fault:
    """Good answers with this usage."""
    return rebodied(lambda body: body.update(usage=usage))


def with_logprob(value: object) -> Fault:
    """Good ratings, whose less probable tokens have this log-probability."""

    def change(body: dict[str, Any]) -> None:
        for token in (body["choices"][0].get("logprobs") or {}).get("content") or ():
            token["top_logprobs"][-1]["logprob"] = value

    return rebodied(change, ranker="pointwise")


def without_parameter(name: str, message: str, allowed: Callable[[Any], bool] = lambda value: False) -> Fault:
    """A server that refuses a parameter of the request."""
    refused = Reply(message, status=400)
    ranker = "pointwise" if name == "top_logprobs" else "listwise"
    return where(lambda body: body.get(name) is not None and not allowed(body[name]), refused, ranker=ranker)


def message_of(message: object, finish: str = "stop", **more: Any) -> Reply:
    """A body with status 200 around a message."""
    return Reply(raw=json.dumps({"choices": [{"message": message, "finish_reason": finish}]} | more).encode())


def cut_off_thinking(body: Body) -> Reply:
    """A model that thinks before it answers, and needs 300 tokens for that."""
    if (body.get("max_tokens") or 10**6) >= 300:
        return sensitive(body)
    return message_of({"content": "", "reasoning_content": "Okay, the user wants"}, finish="length")


def dying(server: FlakyOpenAI, answers: int = 5) -> Respond:
    """A server that is gone after some answers."""

    def respond(body: Body) -> Reply:
        if len(server.bodies) > answers:
            server.die()
            raise ConnectionAbortedError
        return sensitive(body)

    return respond


def slowly(server: FlakyOpenAI) -> Respond:
    """A server that takes its time."""

    def respond(body: Body) -> Reply:
        time.sleep(SLOW)
        return sensitive(body)

    return respond


def redirecting(server: FlakyOpenAI) -> Respond:
    """A server that sends callers to another host; nobody must go there."""
    return lambda body: Reply(status=307, headers={"Location": "http://127.0.0.2:9/v1/chat/completions"})


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def _silent(connection: socket.socket) -> None:
    connection.recv(1)  # until the client gives up


def _dripping(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n")
    while True:
        connection.sendall(b" ")
        time.sleep(1)


def _cut(connection: socket.socket) -> None:
    connection.sendall(b'HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n{"choices": [{"message": {"con')


FILTERED = "The response was filtered due to the prompt triggering the content management policy."
TOO_LONG = "This model's maximum context length is 4096 tokens."
PAGE = b"<!doctype html><html><body><h1>Sign in to continue</h1></body></html>"
LMSTUDIO = b'{"error": "Unexpected endpoint or method. (POST /chat/completions). Returning 200 anyway"}'
LOADING = json.dumps({"error": {"message": "model is loading"}}).encode()
IN_TIME = ("--timeout", 0.5)
NOBODY = "Connection refused|no server listens there"
NO_MESSAGE = "without a message of the model"

FAULTS: dict[str, Fault] = {
    "healthy": Fault(lambda server: sensitive),
    # --- the server
    "no server": Fault(lambda server: sensitive, says=NOBODY, begins=lambda server: server.die()),
    "gone half way": Fault(dying, says=NOBODY),
    "401": every(Reply("Incorrect API key provided.", status=401), says="Incorrect API key"),
    "403": every(Reply("Your country is not supported.", status=403), says="Your country is not"),
    "404": every(Reply("The model m does not exist.", status=404), says="The model m does not exist"),
    "429 at first": at_first(Reply("Too many requests.", status=429)),
    "429 for ever": every(Reply("Too many requests.", status=429), says="Too many requests"),
    "500 at first": at_first(Reply("on fire", status=500)),
    "500 for ever": every(Reply("on fire", status=500), says="on fire"),
    "400 for ever": every(Reply("messages must alternate", status=400), says="messages must alternate"),
    "a redirect": Fault(redirecting, says="307"),
    "a reset": every(Reply(wire=_reset)),
    "a cut body": every(Reply(wire=_cut)),
    "a byte a second": every(Reply(wire=_dripping), says="no complete answer within 0.5 s", options=IN_TIME),
    "silence": every(Reply(wire=_silent), says="no complete answer within 0.5 s", options=IN_TIME),
    "slow": Fault(slowly, options=("--max-minutes", 0.01)),
    # --- no answer, with status 200
    "a web page": every(Reply(raw=PAGE), says="Sign in to continue"),
    "an error text": every(Reply(raw=LMSTUDIO), says="Unexpected endpoint or method"),
    "an error object": every(Reply(raw=LOADING), says="model is loading"),
    "an error at first": at_first(Reply(raw=LOADING)),
    "no choices": every(Reply(raw=b'{"choices": [], "detail": "overloaded"}'), says="overloaded"),
    "choices null": every(Reply(raw=b'{"choices": null, "detail": "overloaded"}'), says="overloaded"),
    "content empty": every(message_of({"role": "assistant", "content": ""}), says=NO_MESSAGE),
    "content null": every(message_of({"role": "assistant", "content": None}), says=NO_MESSAGE),
    "a tool call": every(
        message_of({"content": None, "tool_calls": [{"function": {"name": "look_up", "arguments": "{}"}}]}),
        says="look_up",
    ),
    # --- texts that a provider refuses
    "one item filtered": about_one("traits", message_of({"content": ""}, finish="content_filter")),
    "one item refused": about_one("traits", Reply(FILTERED, status=400)),
    "one item too long": about_one("traits", Reply(TOO_LONG, status=400)),
    "one user filtered": about_one("motivations", message_of({"content": ""}, finish="content_filter")),
    "one user too long": about_one("motivations", Reply(TOO_LONG, status=400)),
    "refusals": every(message_of({"content": None, "refusal": "I cannot help with that."})),
    # --- good answers with something around them
    "a code fence": reworded(lambda text: f"```json\n{text}\n```"),
    "chatter": reworded(lambda text: f"Sure! Here is the answer:\n\n{text}\n\nLet me know if you need more!"),
    "thoughts": reworded(lambda text: f'<think>\nPerhaps {{"draft": true}}.\n</think>\n\n{text}'),
    "thinking cut off": Fault(lambda server: cut_off_thinking),
    "two choices": rebodied(lambda body: body["choices"].append({"message": {"content": "Second."}})),
    "no usage": rebodied(lambda body: body.pop("usage")),
    "usage null": with_usage(None),
    "usage negative": with_usage({"prompt_tokens": -5, "completion_tokens": -7}),
    "usage NaN": with_usage({"prompt_tokens": float("nan"), "completion_tokens": float("inf")}),
    "usage a text": with_usage("many"),
    "cached above all": with_usage({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 10**6}}),
    "logprobs null": rebodied(lambda body: body["choices"][0].update(logprobs=None), ranker="pointwise"),
    "a logprob null": with_logprob(None),
    "a logprob NaN": with_logprob(float("nan")),
    "a logprob a text": with_logprob("-1"),
    "no response_format": without_parameter("response_format", "response_format is not supported by this model"),
    "no top_logprobs": without_parameter("top_logprobs", "Cannot request more than 5 logprobs.", lambda n: n <= 5),
    "no max_tokens": without_parameter("max_tokens", "Unsupported parameter: 'max_tokens'"),
    # --- odd texts
    "half an emoji": reworded(lambda text: text.replace("for", "for \\ud83d").replace("reason", "reason \\ud83d")),
    "NUL": reworded(lambda text: text.replace("for", "for \\u0000").replace("reason", "reason \\u0000")),
    "nested objects": every(Reply('{"a":' * 300)),
    "brackets": every(Reply("[" * 5000)),
    "digits": every(Reply('{"traits": ' + "9" * 5000 + "}")),
    "megabytes": every(Reply("la " * (LONG // 3))),
    "no sense": every(Reply("I am sorry, I cannot write that.")),
    # --- rankings
    "labels twice": ranked(lambda labels: [*labels, *labels]),
    "unknown labels": ranked(lambda labels: [7, *labels, 10**30]),
    "negative labels": ranked(lambda labels: [-labels[0], *labels]),
    "only unknown labels": ranked(lambda labels: [1, 2, 3]),
    "labels as floats": ranked(lambda labels: [float(label) for label in labels]),
    "labels as fractions": ranked(lambda labels: [label + 0.5 for label in labels]),
}
