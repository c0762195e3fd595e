"""Servers that speak the dialect of a family of models, and refuse what this family refuses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from tests.support.fake_server import Body, Reply, sensible

Family = Callable[[Body], Reply]


def as_openai(body: Body) -> Body:
    """A request of any dialect with its texts where OpenAI has them."""
    system = body.get("system") or body.get("systemInstruction", {}).get("parts", "")
    turns = [("system", system)] if system else []
    turns += [(turn["role"], turn.get("content", turn.get("parts"))) for turn in body.get("contents", ())]
    turns += [(turn["role"], turn["content"]) for turn in body.get("messages", ())]
    roles = {"model": "assistant", "developer": "system"}
    return {"messages": [{"role": roles.get(role, role), "content": _text(content)} for role, content in turns]}


def _text(content: object) -> str:
    if isinstance(content, list):
        return "".join(part["text"] for part in content)
    return str(content)


def _answer(body: Body) -> str:
    return sensible(as_openai(body)).content


def _refusal(body: Body, *names: str) -> Reply | None:
    """400 for the first of these parameters that a request holds."""
    found = next((name for name in names if name in body), None)
    return None if found is None else Reply(f"Unsupported parameter: {found!r} is not supported.", status=400)


def _openai_chat(request: Body, usage: Body) -> Reply:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": _answer(request)}}
    body = {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return Reply(raw=json.dumps(body).encode())


def _gpt_6(body: Body) -> Reply:
    if no := _refusal(body, "temperature", "top_p", "logprobs", "top_logprobs", "max_tokens"):
        return no
    if body.get("reasoning_effort") not in ("none", "low", "medium", "high"):
        return Reply("Unsupported value: 'reasoning_effort'", status=400)
    details = {"cached_tokens": 300, "cache_write_tokens": 600}
    return _openai_chat(body, {"prompt_tokens": 1000, "completion_tokens": 20, "prompt_tokens_details": details})


def _gpt_4(body: Body) -> Reply:
    usage = {"prompt_tokens": 1000, "completion_tokens": 20}
    return _refusal(body, "reasoning_effort") or _openai_chat(body, usage)


def _claude(thinking: str) -> Family:
    def respond(body: Body) -> Reply:
        if no := _refusal(body, "temperature", "top_p", "top_k", "logprobs"):
            return no
        if body.get("thinking", {}).get("type") != thinking:
            return Reply(f"thinking.type: expected {thinking}", status=400)
        usage = {
            "input_tokens": 100,
            "cache_read_input_tokens": 300,
            "cache_creation_input_tokens": 600,
            "output_tokens": 20,
        }
        content = [{"type": "text", "text": _answer(body)}]
        message = {"id": "x", "type": "message", "role": "assistant", "model": "m", "content": content, "usage": usage}
        return Reply(raw=json.dumps(message | {"stop_reason": "end_turn"}).encode())

    return respond


def _gemini(body: Body) -> Reply:
    settings = body.get("generationConfig", {})
    if no := _refusal(settings, "temperature", "topP", "responseLogprobs", "logprobs"):
        return no
    if settings.get("maxOutputTokens", 0) < 4000:
        return Reply("the thoughts need room", status=400)
    content = {"role": "model", "parts": [{"text": _answer(body)}]}
    usage = {"promptTokenCount": 1000, "candidatesTokenCount": 20, "thoughtsTokenCount": 80, "totalTokenCount": 1100}
    answer = {"candidates": [{"content": content, "finishReason": "STOP"}], "usageMetadata": usage}
    return Reply(raw=json.dumps(answer).encode())


def _open_weights(body: Body) -> Reply:
    if body.get("reasoning_effort") != "low":
        return Reply("reasoning_effort: low, medium or high", status=400)
    usage = {"prompt_tokens": 1000, "completion_tokens": 20}
    return _refusal(body, "logprobs") or _openai_chat(body, usage)


FAMILIES: Mapping[str, Family] = {
    "openai/gpt-6-luna": _gpt_6,
    "openai/gpt-6.1-terra": _gpt_6,
    "openai/gpt-4.1": _gpt_4,
    "anthropic/claude-haiku-5-5": _claude("disabled"),
    "anthropic/claude-sonnet-5-5": _claude("adaptive"),
    "gemini/gemini-3.8-flash": _gemini,
    "groq/openai/gpt-oss-120b": _open_weights,
}
"""By model string; every answer reports 1,000 tokens of the prompt."""
