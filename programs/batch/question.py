"""A question of a wave: the request that the direct path would send, and everything needed to read its answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from dspy._vendor.lm15.serde import request_from_dict, request_to_dict
from dspy.lm15 import Message, Request, TextPart
from pydantic import BaseModel, ConfigDict, Field

from programs.lm.refused_parameters import LEAST_CAP
from programs.lm.roles import RoleConfig

GIVEN_UP = 599
"""Status of a line that was asked several times in vain."""

_NOT_ASCII = bytes(range(128, 256))
_TEXTS = ("messages", "system", "contents", "systemInstruction")
"""Fields of a body that hold texts, in any provider's form."""


class Refusal(NamedTuple):
    """An answer that is not kept in the response cache: an error that would be one again, or an answer without text.

    Attributes:
        status: HTTP status, or `GIVEN_UP`.
        body: As the provider sent it.
    """

    status: int
    body: str


class BatchQuestion(BaseModel):
    """One line of a batch.

    Attributes:
        key: Of its answer in the response cache; the line's custom id.
        role: The role that asks.
        config: Of the role: model, and the variable with the key.
        model: The model string of DSPy, which the ledger shows.
        about: What the call is about, see `Call.about`.
        url: That the direct path would send it to.
        body: Of the request, as JSON; empty once it is in a job's file.
        form: See `form_of`.
        refusals: Earlier answers to the same question in other forms, with parameters that were refused.
        request: In DSPy's form without its messages, as plain data; the answer is read with it.
        tokens_in, tokens_out: The most tokens that prompt and answer may take.
        most_usd: Upper estimate of its price in a batch; None where unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    key: str = Field(pattern="^[0-9a-f]{64}$")
    role: str
    config: RoleConfig
    model: str
    about: str
    url: str
    body: str = ""
    form: str
    refusals: dict[str, Refusal] = Field(default_factory=dict)
    request: dict[str, Any]
    tokens_in: int
    tokens_out: int
    most_usd: float | None

    @property
    def asked(self) -> Request:
        """The request in DSPy's form, without its messages."""
        request: Request = request_from_dict(self.request)
        return request


Refusals = Mapping[tuple[str, str], Refusal]
"""By key of the question and form of its body."""


def form_of(body: bytes) -> str:
    """Hash of everything in a body but its texts: a request without a refused parameter has another form.

    >>> form_of(b'{"contents": ["a"], "labels": 1}') == form_of(b'{"contents": ["b"], "labels": 1}')
    True
    """
    fields = {name: value for name, value in json.loads(body).items() if name not in _TEXTS}
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def without_messages(request: Request) -> dict[str, Any]:
    """A request in DSPy's form as plain data, with an empty question in place of its texts."""
    empty = Message(role="user", parts=(TextPart("-"),))
    plain: dict[str, Any] = request_to_dict(replace(request, messages=(empty,), system=None))
    return plain


def most_tokens(body: bytes) -> tuple[int, int]:
    """The most tokens that the prompt in a body and its answer may take.

    >>> most_tokens(b'{"messages": [], "max_tokens": 100}')
    (81, 100)
    >>> most_tokens(b'{"contents": [], "generationConfig": {"maxOutputTokens": 100}}')
    (95, 100)
    """
    fields = json.loads(body)
    limits = [fields.get("max_tokens"), fields.get("max_completion_tokens")]
    limits.append(fields.get("generationConfig", {}).get("maxOutputTokens"))
    cap = max(int(limit or 0) for limit in limits)
    # As for a call of its own: half a token for each Latin letter, a token for each byte of other scripts.
    letters = len(body.translate(None, _NOT_ASCII))
    return letters // 2 + (len(body) - letters) + 64, max(cap, LEAST_CAP)
