"""Expected rating from token log-probabilities: finer than the rating as written, and without ties."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from dspy.clients.legacy_outputs import plain


def expected_label(logprobs: Mapping[str, Any] | None, labels: Sequence[str]) -> tuple[float, float] | None:
    """Expected value over numeric labels at the first token that is one of them.

    Args:
        logprobs: OpenAI-shaped token log-probabilities: `content[i]` with `token`, `top_logprobs`.
        labels: Numeric labels, one token each, e.g. "1" to "5".

    Returns:
        (expectation in the labels' range, probability mass the labels held together in 0..1), or None when the
        answer carries no log-probabilities for a label.

    >>> top = [{"token": "4", "logprob": math.log(0.6)}, {"token": " 5", "logprob": math.log(0.2)}]
    >>> value, mass = expected_label({"content": [{"token": "4", "top_logprobs": top}]}, ["4", "5"])
    >>> round(value, 3), round(mass, 3)
    (4.25, 0.8)
    """
    for token in plain(dict(logprobs or {})).get("content") or []:
        if token["token"].strip() not in labels:
            if token["token"].strip():
                return None
            continue
        probability: dict[str, float] = {}
        for top in token.get("top_logprobs") or []:
            label = top["token"].strip()
            if label in labels and math.isfinite(top["logprob"]):
                probability[label] = probability.get(label, 0.0) + math.exp(top["logprob"])
        mass = sum(probability.values())
        if mass <= 0:
            return None
        return sum(float(label) * p for label, p in probability.items()) / mass, min(mass, 1.0)
    return None
