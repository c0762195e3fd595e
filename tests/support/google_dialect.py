"""Google's interface as a fake server speaks it: answers of `generateContent`, and operations of batches."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.fake_server import Body, Reply
from tests.support.provider_families import as_openai

if TYPE_CHECKING:
    from tests.support.batch_server import FakeBatch

THOUGHTS = 7
"""Tokens of every answer that are billed beside its text."""

_CODES = {400: 3, 429: 8, 500: 13}
_STATES = {"in_progress": "RUNNING", "completed": "SUCCEEDED", "failed": "FAILED", "cancelled": "CANCELLED"}


def generated(body: Body, reply: Reply) -> Body:
    """The answer to a request of `generateContent`, or the error in its place."""
    if reply.status != 200:
        return {"error": {"code": reply.status, "message": reply.content, "status": "INVALID_ARGUMENT"}}
    prompt = sum(len(turn["content"]) for turn in as_openai(body)["messages"]) // 4
    usage = {
        "promptTokenCount": prompt,
        "cachedContentTokenCount": prompt // 3,
        "candidatesTokenCount": max(1, len(reply.content) // 4),
        "thoughtsTokenCount": THOUGHTS,
    }
    candidate = {"content": {"role": "model", "parts": [{"text": reply.content}]}, "finishReason": "STOP"}
    return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "r"}


def google_line(key: str, answer: Body | None = None, code: int | None = None) -> bytes:
    """One of the answers of a batch: a body of `generated`, a code of an error, or neither."""
    line: Body = {"metadata": {"key": key}}
    if code is not None:
        line["error"] = {"code": code, "message": "x"}
    elif answer is not None and "error" in answer:
        # Unlike a call of its own, a line holds the code of a remote procedure call.
        line["error"] = {"code": _CODES[answer["error"]["code"]], "message": answer["error"]["message"]}
    elif answer is not None:
        line["response"] = answer
    return json.dumps(line).encode()


def operation(batch: FakeBatch, refusal: str) -> Body:
    """A batch as Google shows it.

    Args:
        refusal: Why batches are refused as a whole, if they are.
    """
    worked = len(batch.lines) if batch.status == "completed" else 0
    stats = {"requestCount": str(len(batch.lines)), "pendingRequestCount": str(len(batch.lines) - worked)}
    metadata = {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "state": f"BATCH_STATE_{_STATES[batch.status]}",
        "displayName": batch.metadata["displayName"],
        "batchStats": stats | {"successfulRequestCount": str(worked)},
    }
    shown: Body = {"name": f"batches/{batch.id}", "metadata": metadata}
    if batch.status == "in_progress":
        return shown
    shown["done"] = True
    if batch.status == "failed":
        shown["error"] = {"code": 8, "message": refusal}
    elif batch.status == "cancelled":
        shown["error"] = {"code": 1, "message": "cancelled"}
    else:
        answers = [json.loads(line) for line in batch.output.splitlines()]
        shown["response"] = {"inlinedResponses": {"inlinedResponses": answers}}
    return shown
