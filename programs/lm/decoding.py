"""Decoding policy of a hosted model: what its requests may hold, and how much it thinks before it answers.

Reasoning models refuse a temperature, give no log-probabilities, and bill their thoughts as answer. What a family takes
is read from the table of models; what a server refuses all the same is left out later (`refused_parameters`).
"""

from __future__ import annotations

import re
from typing import Any, Literal

from programs.lm.listed_models import table_entry, takes

Effort = Literal["none", "minimal", "low", "medium", "high"]
"""How much a reasoning model thinks before it answers."""

_ROOM_FOR_THOUGHTS = 16_000
"""Tokens of an answer with its thoughts; DSPy wants at least as many for OpenAI's reasoning models."""

_FIRST_REASONING_MODELS = re.compile(r"openai/(o\d|gpt-5(?!\.[5-9]))")
"""They keep the policy that they have had since the first version, so that runs with them resume."""


def decoding_policy(model: str) -> dict[str, Any]:
    """Fields of a `RoleConfig` that depend on the family of a hosted model.

    Args:
        model: `provider/name`.

    >>> decoding_policy("openai/gpt-4.1")
    {}
    >>> decoding_policy("openai/gpt-6-luna")
    {'temperature': None, 'top_p': None, 'logprobs': False, 'effort': 'none'}
    """
    if _FIRST_REASONING_MODELS.match(model):
        return {"temperature": None, "top_p": None, "max_tokens": _ROOM_FOR_THOUGHTS, "logprobs": False}
    thinks = takes(model, "reasoning") is True
    policy: dict[str, Any] = {}
    if takes(model, "sampling_params") is False or (thinks and model.startswith("openai/")):
        policy |= {"temperature": None, "top_p": None}
    if not thinks:
        return policy
    effort = _least_effort(model)
    policy |= {"logprobs": False, "effort": effort}
    if effort != "none" or model.startswith("openai/gpt-5"):
        policy["max_tokens"] = _ROOM_FOR_THOUGHTS
    return policy


def _least_effort(model: str) -> Effort:
    """The least that a reasoning model can be told to think: the tasks of this program are short."""
    if takes(model, "none_reasoning_effort"):
        return "none"
    if model.startswith("anthropic/"):
        return "low" if (table_entry(model) or {}).get("thinking_always_on") else "none"
    return "minimal" if takes(model, "minimal_reasoning_effort") else "low"
