"""Estimate of the cost of a program's calls from its real prompts and invented answers, without a call."""

from __future__ import annotations

import re
from typing import Any

import dspy

from programs.lm.backends import Accept, Backends, UnparsableError
from programs.lm.ledger import Call, Ledger
from programs.lm.roles import RoleName
from signatures.mope import Reassessment, draft_type
from signatures.schema import MotivationSchema

LETTERS_PER_TOKEN = 4
"""Approximate number of characters per token in English prompts."""


class Rehearsal(Backends):
    """Backends that make no calls: they invent answers and record the estimated usage in their own ledger.

    Args:
        backends: Backends with the real models and prices.
        schema: Motivational schema of the answers.
    """

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
        config, signature = self.roles.of(role), predictor.signature
        adapter = self.adapter_for(role, predictor)
        answers = {name: self._answer(name, inputs) for name in signature.output_fields}
        messages = adapter.format(signature, predictor.demos, inputs)
        written = adapter.format_assistant_message_content(signature, answers)
        tokens_in = sum(len(message["content"]) for message in messages) // LETTERS_PER_TOKEN
        tokens_out = len(written) // LETTERS_PER_TOKEN + 1
        price = self.prices.of(config.model)
        usd = None if price is None or price.usd_per_hour is not None else price.usd(tokens_in, tokens_out)
        self.ledger.record(
            Call(role=role, model=config.model, tokens_in=tokens_in, tokens_out=tokens_out, usd=usd, about=role)
        )
        if None in answers.values():
            raise UnparsableError(f"{role}: not rehearsed", 1)
        return dspy.Prediction(unparsable=0, **answers)

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
            "reassessments": [Reassessment(number=number, action="keep", description="") for number in (1, 2, 3)],
            "traits": ["easy to use every day", "lasts for many years", "made to be given away"],
            "rating": "3",
        }.get(field)
