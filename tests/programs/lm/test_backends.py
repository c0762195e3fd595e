"""Asking a model: retries, unparsable answers, and how long an answer may be."""

from __future__ import annotations

import json
from typing import Any

import dspy
import pytest

from programs.default_demos import RATINGS, TRAITS
from programs.lm.adapters import (
    AdapterName,
)
from programs.lm.backends import Backends, UnparsableError
from programs.lm.model_options import ModelOptions
from programs.lm.roles import local_roles
from programs.mote import MOTE
from programs.role_predictor import RolePredictor
from programs.runtime.errors import InputError
from programs.trait_store import TraitStore
from signatures.mar import score_candidate
from signatures.mope import infer_motivations
from signatures.mote import DistillTraits
from signatures.schema import CONSUMER
from signatures.types import Item
from tests.support.backends import backends_on, distill, paid, rate
from tests.support.fake_server import FakeOpenAI, Reply, replying

CANARY = "sk-canary-7f3a91"
LABELS = ("1", "2", "3", "4", "5")


class TestCaps:
    @pytest.mark.parametrize(
        ("adapter", "begin"), [("compact", '{"traits": '), ("json", '{"traits": '), ("chat", "[[ ## traits ## ]]\n")]
    )
    def test_an_answer_that_was_cut_off_is_read_as_far_as_it_is_whole(self, adapter: AdapterName, begin: str) -> None:
        with replying(Reply(begin + '["easy to use", "kind to skin", "sturdy every')) as server:
            answer = distill(backends_on(server, adapter=adapter))
            assert (answer.traits, answer.unparsable, len(server.bodies)) == (["easy to use", "kind to skin"], 0, 1)

    @pytest.mark.parametrize(
        ("adapter", "begin"), [("compact", ""), ("json", ""), ("chat", "[[ ## motivations ## ]]\n")]
    )
    def test_half_a_motivation_does_not_cost_the_whole_profile(self, adapter: AdapterName, begin: str) -> None:
        whole = {"dimension": "value", "description": "much for little", "strength": "strong", "evidence": [1]}
        cut = json.dumps({"motivations": [whole, whole]}).removesuffix(', "strength": "strong", "evidence": [1]}]}')
        cut = begin + cut.removeprefix('{"motivations": ') if begin else cut
        with replying(Reply(cut)) as server:
            backends = backends_on(server, adapter=adapter)
            asked = RolePredictor(infer_motivations(CONSUMER), "mope", backends, 240)
            answer = asked(shopper="nothing known", history="1. Cup")
            assert [draft.model_dump() for draft in answer.motivations] == [whole]
            assert answer.unparsable == 0

    def test_a_terse_role_caps_an_answer_at_what_is_enough(self, server: FakeOpenAI) -> None:
        roles = local_roles(server.model())
        for terse, expected in ((True, 104), (False, 512)):
            config = roles.mote.model_copy(update={"terse": terse})
            backends = Backends(roles.model_copy(update={"mote": config}))
            RolePredictor(DistillTraits, "mote", backends, 104, TRAITS)(product="cup")
            assert server.bodies[-1]["max_tokens"] == expected
        assert len(server.bodies) == 2


class TestRetries:
    @pytest.mark.parametrize("statuses", [[429], [500], [503, 429]])
    def test_a_passing_failure_leaves_one_recorded_answer(self, statuses: list[int]) -> None:
        with replying(*(Reply(status=status, headers={"Retry-After": "0"}) for status in statuses)) as server:
            backends = backends_on(server)
            answer = distill(backends)
            assert (answer.unparsable, len(server.bodies)) == (0, len(statuses) + 1)
            assert paid(backends.ledger.total()) == (len(statuses) + 1, server.tokens_in, server.tokens_out)

    def test_a_refused_key_ends_it_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OUR_KEY", CANARY)
        with replying(Reply("invalid key", status=401)) as server:
            with pytest.raises(InputError, match=r"^mote: http://127\.0\.0\.1:\d+/v1#fake: .*invalid key"):
                distill(backends_on(server, api_key_env="OUR_KEY"))
            assert len(server.bodies) == 1

    @pytest.mark.parametrize("adapter", ["compact", "json", "chat"])
    def test_two_unparsable_answers_are_the_end(self, adapter: AdapterName) -> None:
        with FakeOpenAI(lambda body: Reply("I would rather not.")) as server:
            backends = backends_on(server, adapter=adapter)
            with pytest.raises(UnparsableError, match="mote: 2 answers could not be parsed") as error:
                distill(backends)
            assert (error.value.answers, len(server.bodies)) == (2, 2)
            assert backends.ledger.total().calls == 2

    def test_one_is_asked_again_at_another_temperature_and_counted(self) -> None:
        with replying(Reply("{")) as server:
            answer = distill(backends_on(server))
            assert (answer.unparsable, len(answer.traits)) == (1, 3)
            assert [body["temperature"] for body in server.bodies] == [0.0, 0.7]

    def test_a_model_that_takes_no_temperature_is_never_sent_one(self) -> None:
        with replying(Reply("{")) as server:
            assert distill(backends_on(server, temperature=None)).unparsable == 1
            assert [body.get("temperature") for body in server.bodies] == [None, None]

    def test_a_rating_that_is_none_is_asked_again(self) -> None:
        with replying(Reply("hard to say")) as server:
            answer = rate(backends_on(server))
            assert (answer.unparsable, answer.rating in LABELS) == (1, True)

    def test_worked_examples_travel_as_turns_of_the_conversation(self, server: FakeOpenAI) -> None:
        predict = dspy.Predict(score_candidate("profile", "traits"))
        predict.demos = RATINGS
        backends_on(server).ask("mar", predict, shopper="- value", product="a cup")
        turns = [(m["role"], m["content"]) for m in server.bodies[0]["messages"]]
        assert [role for role, _ in turns] == ["system", *["user", "assistant"] * 3, "user"]
        assert [text for role, text in turns if role == "assistant"] == ["5", "1", "3"]


def lm_at(server: FakeOpenAI, **settings: Any) -> dspy.LM:
    return dspy.LM("openai/served", **{"api_base": server.url, "api_key": CANARY, "max_tokens": 100, **settings})


def on_objects(**models: dspy.LM) -> Backends:
    options = ModelOptions(**models)
    return Backends(options.roles(), given=options.given)


class TestGivenObjects:
    @pytest.mark.parametrize("other", [{"temperature": 0.3}, {"api_key": CANARY[::-1]}, {"api_base": "http://x/v1"}])
    def test_two_with_one_name_and_other_settings_are_refused(self, other: dict[str, Any], server: FakeOpenAI) -> None:
        options = ModelOptions(model=lm_at(server), mar=lm_at(server, **other))
        with pytest.raises(InputError, match=f"'openai/served' and differ in {next(iter(other))}") as error:
            options.given  # noqa: B018
        assert "canary" not in str(error.value)

    def test_one_for_several_roles_is_one_model_and_so_are_equal_ones(self, server: FakeOpenAI) -> None:
        one = lm_at(server)
        for options in (ModelOptions(model=one, mar=one), ModelOptions(model=one, mar=lm_at(server))):
            assert list(options.given) == ["dspy:openai/served"]

    def test_one_that_asks_for_several_answers_is_refused_before_any(self, server: FakeOpenAI) -> None:
        backends = on_objects(model=lm_at(server, n=5))
        for ask in (lambda: backends.require("mote"), lambda: distill(backends)):
            with pytest.raises(InputError, match=r"^mote: the dspy\.LM object 'openai/served' asks for n=5 answers"):
                ask()
        assert not server.bodies
        assert distill(on_objects(model=lm_at(server, n=1))).traits

    def test_answers_and_traits_of_two_servers_that_call_their_model_alike_are_kept_apart(self) -> None:
        store, cup = TraitStore(), Item(item_id="x", title="Cup")
        elsewhere = Reply(json.dumps({"traits": ["kept somewhere else"]}))
        with FakeOpenAI() as one, FakeOpenAI(lambda body: elsewhere) as other:
            three = [on_objects(model=lm_at(server)) for server in (one, other, one)]
            answers = [distill(backends).traits for backends in three]
            traits = [MOTE(backends, store=store)(item=cup).text for backends in three]
            assert (len(one.bodies), len(other.bodies)) == (2, 2)
        assert answers[0] == answers[2] != answers[1] == ["kept somewhere else"]
        assert traits[0] == traits[2] != traits[1]
