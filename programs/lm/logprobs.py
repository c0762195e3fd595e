"""Token log-probabilities of labels, and the expected rating: finer than a label as written, so that ties are rare."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dspy.clients.legacy_outputs import plain

from programs.lm.answer_text import ends_reasoning

MARKUP = " \t\r\n\"'*`"
"""Characters that may surround a label."""

_WORD = re.compile(r"[AaIi](?:['\u2019-]\w|[ \t]+[\"'*`\u2018\u201c]*\w)")
"""An article or a pronoun: what follows a label is the end, a punctuation mark or a line break."""

_RATING, _CHOICE = "rating:", "choice:"
"""What an answer may begin with, as in "Rating: 4"."""


def expected_label(logprobs: Mapping[str, Any] | None, labels: Sequence[str]) -> float | None:
    """Expected value over numeric labels at the first token of the answer that is neither markup nor its field's name.

    Args:
        logprobs: OpenAI-shaped token log-probabilities: `content[i]` with `token`, `top_logprobs`.
        labels: Numeric labels, one token each, e.g. "1" to "5".

    Returns:
        The expectation, in the labels' range; None where that token is no label or has no log-probabilities.

    >>> top = [{"token": "4", "logprob": math.log(0.6)}, {"token": " 5", "logprob": math.log(0.2)}]
    >>> round(expected_label({"content": [{"token": "4", "top_logprobs": top}]}, ["4", "5"]), 3)
    4.25
    """
    before = ""
    for token in plain(dict(logprobs or {})).get("content") or []:
        if token["token"].strip() not in labels or before.lstrip().startswith("<"):
            before += token["token"]
            if before.lstrip().startswith("<"):
                before = "" if ends_reasoning(before) else before
                continue
            if not _RATING.startswith(before.strip(MARKUP).lower()):
                return None
            continue
        probability, _ = _probabilities(token, labels)
        mass = sum(probability.values())
        return sum(float(label) * p for label, p in probability.items()) / mass if mass > 0 else None
    return None


def begins_with_word(text: str) -> bool:
    """Whether a text begins with a letter that is a word of English there, and no label.

    >>> begins_with_word("I would choose C"), begins_with_word("A good one"), begins_with_word("A: a good one")
    (True, True, False)
    """
    return _WORD.match(text) is not None


def label_logprobs(logprobs: Mapping[str, Any] | None, labels: Sequence[str]) -> tuple[dict[str, float], float] | None:
    """Log-probability of each label where the answer names one, else at its first token.

    Args:
        logprobs: OpenAI-shaped token log-probabilities: `content[i]` with `token`, `top_logprobs`.
        labels: Labels of one token each; upper and lower case differ.

    Returns:
        The labels among the tokens listed, and the least log-probability of the list, in nats: a label that is missing
        has less. A letter that the answer goes on from as a word ("I would") is no label. None where no label is
        listed, or the model thinks before it answers.

    >>> top = [{"token": "A", "logprob": -0.5}, {"token": "The", "logprob": -2.0}]
    >>> label_logprobs({"content": [{"token": "A", "top_logprobs": top}]}, ["A", "B"])
    ({'A': -0.5}, -2.0)
    """
    content = plain(dict(logprobs or {})).get("content") or []
    if not content or content[0]["token"].lstrip().startswith("<"):
        return None
    position, before = content[0], ""
    for place, token in enumerate(content):
        if (written := token["token"].strip()) in labels:
            if begins_with_word("".join(one["token"] for one in content[place:]).lstrip()):
                labels = [label for label in labels if label != written]
            else:
                position = token
            break
        before += token["token"]
        if not _CHOICE.startswith(before.strip(MARKUP).lower()):
            break
    probability, listed = _probabilities(position, labels)
    found = {label: math.log(p) for label, p in probability.items() if p > 0}
    return (found, min(listed)) if found else None


def _probabilities(token: Mapping[str, Any], labels: Sequence[str]) -> tuple[dict[str, float], list[float]]:
    """Probabilities of the labels in the place of a token, and all log-probabilities that are listed there."""
    probability: dict[str, float] = {}
    listed: list[float] = []
    for top in token.get("top_logprobs") or []:
        label, logprob = top["token"].strip(), top["logprob"]
        # Not `isfinite`, which fails for an integer of hundreds of digits; NaN is not within the bound either.
        if not isinstance(logprob, (int, float)) or not abs(logprob) <= sys.float_info.max:
            continue
        listed.append(float(logprob))
        if label in labels:
            probability[label] = probability.get(label, 0.0) + math.exp(min(logprob, 0.0))
    return probability, listed
