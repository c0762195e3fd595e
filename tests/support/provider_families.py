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


def claude_body(*content: Body, stop: str = "end_turn") -> Body:
    """A message of Anthropic's models."""
    head = {"id": "x", "type": "message", "role": "assistant", "model": "m", "content": [*content]}
    return {**head, "stop_reason": stop, "usage": {"input_tokens": 10, "output_tokens": 2}}


def gemini_body(*parts: Body, finish: str = "STOP", **more: object) -> Body:
    """A candidate of Google's models."""
    candidate = {"content": {"role": "model", "parts": [*parts]}, "finishReason": finish}
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 2, "totalTokenCount": 12}
    return {"candidates": [candidate], "usageMetadata": usage, **more}


def openai_body(message: Body, finish: str = "stop") -> Body:
    """A choice of OpenAI's models."""
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", **message}}
    return {"choices": [choice], "model": "m", "usage": {"prompt_tokens": 10, "completion_tokens": 2}}


_CLAUDE, _GEMINI, _GPT = "anthropic/claude-haiku-5-5", "gemini/gemini-3.8-flash", "openai/gpt-4.1"
_BLOCKED = ("SAFETY", "RECITATION", "LANGUAGE", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")
_HALF = '{"traits": ["easy to'

NO_ANSWERS: Mapping[str, list[Body]] = {
    _CLAUDE: [
        claude_body(),
        claude_body({"type": "text", "text": " \n"}),
        claude_body({"type": "tool_use", "id": "t", "name": "f", "input": {}}, stop="tool_use"),
        {"type": "error", "error": {"type": "overloaded_error", "message": "busy"}},
        {},
    ],
    _GEMINI: [
        gemini_body(),
        gemini_body({"text": ""}, finish="OTHER"),
        gemini_body({"functionCall": {"name": "f", "args": {}}}),
        gemini_body(finish="MALFORMED_FUNCTION_CALL"),
        gemini_body(finish="UNEXPECTED_TOOL_CALL"),
        {"error": {"message": "busy"}},
        {"candidates": []},
    ],
    _GPT: [
        openai_body({"content": ""}),
        openai_body({"content": None, "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": "{}"}}]}),
        {"error": {"message": "busy"}},
    ],
}
"""With status 200, by model string: no text of the model, and nobody's fault but the provider's."""

WITHHELD: Mapping[str, list[Body]] = {
    _CLAUDE: [
        claude_body(stop="refusal"),
        claude_body({"type": "text", "text": _HALF}, stop="refusal"),
    ],
    _GEMINI: [
        *(gemini_body(finish=reason) for reason in _BLOCKED),
        {"candidates": [{"finishReason": "SAFETY", "index": 0}]},
        *({"promptFeedback": {"blockReason": reason}} for reason in ("SAFETY", "PROHIBITED_CONTENT", "OTHER")),
    ],
    _GPT: [
        openai_body({"content": ""}, finish="content_filter"),
        openai_body({"content": _HALF}, finish="content_filter"),
        openai_body({"content": None, "refusal": "I cannot help with that."}),
    ],
}
"""With status 200, by model string: a filter of the provider, or the model, refuses this very text."""

CUT_OFF_THINKING: Mapping[str, Body] = {
    _CLAUDE: claude_body({"type": "thinking", "thinking": "Hm", "signature": "s"}, stop="max_tokens"),
    _GEMINI: gemini_body({"text": "Hm", "thought": True}, finish="MAX_TOKENS"),
    _GPT: openai_body({"content": ""}, finish="length"),
}
"""By model string: an answer, from which a program learns that the model needs more tokens."""
