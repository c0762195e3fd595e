"""Signatures: the dimensions and list bounds that an answer has to keep."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest
from pydantic import ValidationError

from programs.lm.adapters import AdapterName
from programs.lm.backends import UnparsableError
from signatures.mope import draft_type, infer_motivations
from signatures.mote import DistillTraits
from signatures.schema import CONSUMER, MotivationSchema
from tests.support.backends import backends_on
from tests.support.fake_server import FakeOpenAI, Reply
from tests.support.schemas import FILMS


def drafts(*dimensions: str) -> Reply:
    motivations = [
        {"dimension": d, "description": f"wants {d}", "strength": "strong", "evidence": [1]} for d in dimensions
    ]
    return Reply(json.dumps({"motivations": motivations}))


class TestClosedDimensions:
    def test_the_type_takes_the_schema_s_names_and_no_other(self) -> None:
        draft: dict[str, Any] = {"description": "wants thrills", "strength": "strong", "evidence": [1]}
        assert draft_type(FILMS)(dimension="suspense", **draft).dimension == "suspense"
        for outside in ("value", "Suspense", "", "suspense "):
            with pytest.raises(ValidationError, match="dimension"):
                draft_type(FILMS)(dimension=outside, **draft)

    @pytest.mark.parametrize("adapter", ["compact", "json", "chat"])
    def test_an_answer_with_a_dimension_outside_the_schema_is_no_answer(self, adapter: AdapterName) -> None:
        with FakeOpenAI(lambda body: drafts("suspense", "value")) as server:
            predict = dspy.Predict(infer_motivations(FILMS))
            with pytest.raises(UnparsableError):
                backends_on(server, adapter=adapter).ask("mope", predict, shopper="-", history="1. a film")

    @pytest.mark.parametrize("schema", [CONSUMER, FILMS])
    @pytest.mark.parametrize("adapter", ["compact", "json"])
    def test_the_server_is_told_to_enforce_the_names(self, adapter: AdapterName, schema: MotivationSchema) -> None:
        with FakeOpenAI(lambda body: drafts(*schema.names[:2])) as server:
            predict = dspy.Predict(infer_motivations(schema))
            answer = backends_on(server, adapter=adapter).ask("mope", predict, shopper="-", history="1. a film")
        sent = server.bodies[0]["response_format"]
        assert sent["type"] == "json_schema"
        assert sent["json_schema"]["strict"] is True
        enforced = sent["json_schema"]["schema"]
        assert enforced["$defs"]["MotivationDraft"]["properties"]["dimension"]["enum"] == list(schema.names)
        assert enforced["$defs"]["MotivationDraft"]["additionalProperties"] is False
        assert [m.dimension for m in answer.motivations] == list(schema.names[:2])

    def test_list_bounds_reach_the_grammar_of_a_local_server(self) -> None:
        with FakeOpenAI() as server:
            backends = backends_on(server, adapter="compact")
            backends.ask("mope", dspy.Predict(infer_motivations(CONSUMER)), shopper="-", history="1. a cup")
            backends.ask("mote", dspy.Predict(DistillTraits), product="a cup")
        profile, traits = (body["response_format"]["json_schema"]["schema"]["properties"] for body in server.bodies)
        assert (profile["motivations"]["minItems"], profile["motivations"]["maxItems"]) == (2, 4)
        assert (traits["traits"]["minItems"], traits["traits"]["maxItems"]) == (1, 4)
