"""Estimate of the cost of a program's calls from its real prompts and invented answers, without a call."""

from __future__ import annotations

import json
import re
from typing import Any

import dspy

from programs.lm.backends import Accept, Backends, UnparsableError
from programs.lm.ledger import Call, Ledger
from programs.lm.roles import RoleConfig, RoleName
from programs.lm.routes import Route
from signatures.mope import MAX_NEEDS, NeedDraft, Reassessment, draft_type
from signatures.schema import MotivationSchema

LETTERS_PER_TOKEN = 4
"""Approximate number of characters per token in English prompts."""


class Rehearsal(Backends):
    """Backends that make no calls: they invent answers and record the estimated usage in their own ledger.

    Attributes:
        letters_per_token: Characters of a prompt that count as one token.

    Args:
        backends: Backends with the real models and prices.
        schema: Motivational schema of the answers.
    """

    letters_per_token = LETTERS_PER_TOKEN

    def __init__(self, backends: Backends, schema: MotivationSchema) -> None:
        super().__init__(backends.roles, Ledger(), backends.prices, backends.limits, backends.given)
        self.schema = schema

    def ask(
        self,
        role: RoleName,
        predictor: dspy.Predict,
        rollout: int | None = None,
        enough: int | None = None,
        accept: Accept | None = None,
        **inputs: Any,
    ) -> dspy.Prediction:
        """See `Backends.ask`; a question of an unknown kind is recorded and counts as unparsable."""
        signature = predictor.signature
        adapter = self.adapter_for(role, predictor)
        answers = {name: self._answer(name, inputs) for name in signature.output_fields}
        messages = adapter.format(signature, predictor.demos, inputs)
        written = adapter.format_assistant_message_content(signature, answers)
        letters = sum(len(message["content"]) for message in messages)
        self._record(role, self.roles.of(role), letters, self._tokens_out(written, enough))
        if None in answers.values():
            raise UnparsableError(f"{role}: not rehearsed", 1)
        logprobs = {"content": [{"token": "A", "top_logprobs": [{"token": "A", "logprob": -1.0}]}]}
        return dspy.Prediction(unparsable=0, **answers, **({"logprobs": logprobs} if "choice" in answers else {}))

    def ask_route(self, role: str, config: RoleConfig, route: Route, **fields: Any) -> Any:
        """See `Backends.ask_route`: a number for each document, or for one token of a prompt."""
        self._record(role, config, len(json.dumps(fields)), 0)
        return [float(place) for place, _ in enumerate(fields.get("documents", ["prompt"]))]

    def require(self, role: RoleName) -> None:
        """See `Backends.require`: nobody is asked, so neither keys nor weights are needed."""

    def _tokens_out(self, written: str, enough: int | None) -> int:
        return len(written) // LETTERS_PER_TOKEN + 1

    def _record(self, role: str, config: RoleConfig, letters: int, tokens_out: int) -> None:
        tokens_in, price = letters // self.letters_per_token, self.prices.of(config.model)
        usd = None if price is None or price.usd_per_hour is not None else price.usd(tokens_in, tokens_out)
        self.ledger.record(
            Call(role=role, model=config.model, tokens_in=tokens_in, tokens_out=tokens_out, usd=usd, about=role)
        )

    def _answer(self, field: str, inputs: dict[str, Any]) -> Any:
        """A valid answer of usual length to one output field; None for an unknown field."""
        if field == "motivations":
            draft = draft_type(self.schema)
            return [
                draft(dimension=name, description="what a purchase is for, in words", strength="strong", evidence=[1])
                for name in self.schema.names[:3]
            ]
        if field == "ranking":
            return [int(label) for label in re.findall(r"^(\d\d): ", str(inputs.get("products", "")), re.MULTILINE)]
        return {
            "needs": [NeedDraft(kind="things for long journeys", evidence=[1]) for _ in range(MAX_NEEDS)],
            "occasions": ["birthdays", "evenings at home"],
            "users": ["young children", "parents"],
            "reassessments": [Reassessment(number=number, action="keep", description="") for number in (1, 2, 3)],
            "traits": ["easy to use every day", "lasts for many years", "made to be given away"],
            "rating": "3",
            "choice": "A",
            "reason": "It fits what this person wants, because it lasts for many years.",
            "faithful": "no",
            "why": "the traits do not say that it lasts for many years",
        }.get(field)


class LongestRehearsal(Rehearsal):
    """A rehearsal whose usage is an upper estimate: long answers, and prompts in few letters a token."""

    letters_per_token = 3

    def _tokens_out(self, written: str, enough: int | None) -> int:
        return max(super()._tokens_out(written, enough), enough or 0)
