"""Models on a server of one's own."""

from __future__ import annotations

import json

import pytest
from dspy.utils.exceptions import LMError

from programs.lm.backends import Backends
from programs.lm.logprobs import expected_label
from programs.lm.role_lm import ATTEMPTS
from programs.lm.roles import ROLE_NAMES, RoleConfig, Roles, local_roles
from programs.role_predictor import RolePredictor
from programs.runtime.errors import InputError
from signatures.mote import DistillTraits
from tests.support.backends import backends_on, distill, rate
from tests.support.fake_server import FakeOpenAI, Reply, replying

LABELS = ("1", "2", "3", "4", "5")


class TestOwnServer:
    def test_roles_on_one_server_share_its_connections(self, server: FakeOpenAI) -> None:
        backends = backends_on(server)
        assert backends.lm("mope").engine is backends.lm("mar").engine

    def test_half_a_character_among_the_likeliest_tokens_is_stored(self) -> None:
        top = [{"token": "4", "logprob": -0.2}, {"token": "\ud83d", "logprob": -2.0}]
        with replying(Reply("4", logprobs=[{"token": "4", "logprob": -0.2, "top_logprobs": top}])) as server:
            backends = backends_on(server)
            assert expected_label(rate(backends).logprobs, LABELS) == expected_label(rate(backends).logprobs, LABELS)
            assert (len(server.bodies), backends.ledger.total().cache_hits) == (1, 1)

    def test_a_reasoning_model_behind_one_has_one_limit(self, server: FakeOpenAI) -> None:
        config = RoleConfig(
            model=server.model("gpt-5-mini"), adapter="compact", temperature=None, max_tokens=16000, terse=True
        )
        backends = Backends(Roles.model_validate(dict.fromkeys(ROLE_NAMES, config)))
        assert RolePredictor(DistillTraits, "mote", backends, 104)(product="a cup").traits
        assert rate(backends).rating
        limits = [{name: body[name] for name in body if name.startswith("max_")} for body in server.bodies]
        assert [list(limit.values()) for limit in limits] == [[104], [4]]

    @pytest.mark.parametrize(
        "body",
        [
            {"error": "Unexpected endpoint. Returning 200 anyway"},
            {"error": {"message": "Unexpected endpoint"}},
            {"detail": "Unexpected endpoint", "choices": []},
            {"detail": "Unexpected endpoint", "choices": None},
            {"detail": "Unexpected endpoint", "choices": [{"message": None}]},
        ],
    )
    def test_an_error_with_status_200_is_a_failure_and_never_stored(self, body: object, hurried: None) -> None:
        with replying(*[Reply(raw=json.dumps(body).encode())] * ATTEMPTS) as server:
            with pytest.raises(LMError, match="Unexpected endpoint"):
                distill(backends_on(server))
            assert distill(backends_on(server)).traits  # by then the server is well

    @pytest.mark.parametrize("body", ["[]", "null", '"ok"', "3"])
    def test_a_body_that_is_no_object_is_a_failure(self, body: str, hurried: None) -> None:
        with replying(*[Reply(raw=body.encode())] * ATTEMPTS) as server, pytest.raises(LMError, match="object"):
            distill(backends_on(server))

    def test_an_answer_without_text_is_asked_for_again(self, hurried: None) -> None:
        with replying(Reply("")) as server:
            lm = backends_on(server).lm("mote")
            assert lm("a cup") == lm("a cup") != [""]
            assert len(server.bodies) == 2

    def test_settings_a_model_refuses_are_named(self, server: FakeOpenAI) -> None:
        with pytest.raises(InputError, match=r"mote: .*gpt-5-mini: .*temperature"):
            distill(Backends(local_roles(server.model("gpt-5-mini"))))
