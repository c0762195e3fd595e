"""Keys and addresses of models."""

from __future__ import annotations

import json
import socket
import traceback
from pathlib import Path

import pytest

from programs.lm.backends import Backends
from programs.lm.ledger import Ledger
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import ROLE_NAMES, RoleConfig, Roles
from programs.role_predictor import RolePredictor
from programs.runtime.errors import InputError
from signatures.mote import DistillTraits
from tests.support.backends import backends_on, distill
from tests.support.fake_server import FakeOpenAI, Reply, replying

CANARY = "sk-canary-7f3a91"


class TestKeys:
    def test_a_key_reaches_the_server_and_nothing_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("OUR_KEY", CANARY)
        store = use_response_cache(tmp_path / "calls.sqlite")
        failures = [Reply(status=400), Reply("nonsense"), Reply("nonsense"), Reply(status=401)]
        with replying(*failures) as server:
            ledger = Ledger(tmp_path / "ledger.jsonl")
            backends = backends_on(server, ledger, api_key_env="OUR_KEY")
            program = RolePredictor(DistillTraits, "mote", backends, 104)
            said = []
            for n in range(3):
                with pytest.raises(Exception) as error:
                    program(product=f"cup {n}")
                said.append("".join(traceback.format_exception(error.value)))
            assert len(server.bodies) == 4
            with pytest.raises(InputError, match="rejected the key, account or model") as refused:
                program(product="a bowl")
            said.append("".join(traceback.format_exception(refused.value)))
            assert server.keys == [f"Bearer {CANARY}"] * 4
        ledger.close()
        store.close()
        said += [repr(backends.lm("mote")), repr(backends.roles), json.dumps(program.dump_state()), *capfd.readouterr()]
        assert not [text for text in said if CANARY in text]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert {path.name for path in files} >= {"ledger.jsonl", "calls.sqlite"}
        assert not [path for path in files if CANARY.encode() in path.read_bytes()]

    def test_a_server_without_a_key_gets_none_of_ours(
        self, server: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", CANARY)
        distill(backends_on(server))
        assert CANARY not in server.keys[0]

    def test_a_missing_key_is_named(self, server: FakeOpenAI) -> None:
        with pytest.raises(InputError, match="set the environment variable OUR_KEY"):
            distill(backends_on(server, api_key_env="OUR_KEY"))
        assert server.bodies == []

    def test_a_hosted_model_without_its_key_asks_for_it_and_no_network(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object) -> None:
            pytest.fail("the network was used")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        backends = Backends(Roles.model_validate(dict.fromkeys(ROLE_NAMES, RoleConfig(model="openai/gpt-4o"))))
        with pytest.raises(InputError, match="openai/gpt-4o needs a key: set the environment variable OPENAI_API_KEY"):
            distill(backends)

    @pytest.mark.parametrize("model", ["http://127.0.0.1:1/v1", "http://127.0.0.1:1/v1#", "http://#name"])
    def test_a_malformed_server_address_is_explained(self, model: str) -> None:
        backends = Backends(Roles.model_validate(dict.fromkeys(ROLE_NAMES, RoleConfig(model=model))))
        with pytest.raises(InputError, match="http://host:port/v1#model"):
            distill(backends)
