"""The response cache: what it keeps, and what is another question."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from programs.lm.logprobs import expected_label
from programs.lm.response_cache import use_response_cache
from signatures.rows import Usage
from tests.support.backends import backends_on, distill, rate
from tests.support.fake_server import FakeOpenAI

CANARY = "sk-canary-7f3a91"
LABELS = ("1", "2", "3", "4", "5")


class TestCallStore:
    def test_kept_answers_survive_reopening(self, server: FakeOpenAI, tmp_path: Path) -> None:
        path = tmp_path / "kept" / "calls.sqlite"
        runs = []
        for _ in range(2):
            store = use_response_cache(path)
            backends = backends_on(server)
            runs.append([rate(backends).toDict(), distill(backends).toDict()])
            store.close()
        assert len(server.bodies) == 2
        assert backends.ledger.total() == Usage(cache_hits=2)
        assert runs[0] == runs[1]
        assert expected_label(runs[1][0]["logprobs"], LABELS) is not None

    def test_it_holds_neither_prompts_nor_keys(
        self, server: FakeOpenAI, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OUR_KEY", CANARY)
        path = tmp_path / "calls.sqlite"
        store = use_response_cache(path)
        rate(backends_on(server, api_key_env="OUR_KEY"), "a marzipan submarine")
        for file in sorted(tmp_path.glob("calls.sqlite*")):  # before the close, while the write-ahead log is there
            assert b"marzipan" not in file.read_bytes()
            assert CANARY.encode() not in file.read_bytes()
        store.close()
        assert b'"logprob"' in path.read_bytes()

    def test_two_servers_do_not_share_answers(self, server: FakeOpenAI) -> None:
        distill(backends_on(server))
        with FakeOpenAI() as other:
            distill(backends_on(other))
            assert (len(server.bodies), len(other.bodies)) == (1, 1)

    @pytest.mark.parametrize("change", [{"temperature": 0.5}, {"top_p": 0.5}, {"adapter": "json"}])
    def test_other_sampling_is_another_question(self, server: FakeOpenAI, change: dict[str, Any]) -> None:
        distill(backends_on(server))
        distill(backends_on(server, **change))
        assert len(server.bodies) == 2
