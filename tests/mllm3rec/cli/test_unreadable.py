"""What the commands say and do where a model's answers cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.cases import cases_file
from tests.support.command_line import CommandLine
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible


class TestEvaluate:
    def test_unreadable_answers_are_said_first_and_asked_again_on_request(
        self, tmp_path: Path, cli: CommandLine
    ) -> None:
        cases_file(tmp_path / "cases.jsonl", 3)
        ill = True

        def respond(body: Body) -> Reply:
            ranks = "ranking" in body["messages"][0]["content"]
            return Reply('{"ranking": [1, 2]}') if ill and ranks else sensible(body)

        with FakeOpenAI(respond) as server:
            command = ("evaluate", tmp_path / "cases.jsonl", "--ranker", "listwise", "--model", server.model())
            out = ("--out", tmp_path / "run")
            shown = cli(*command, *out)
            assert shown.code == 1
            assert shown.out.lstrip().startswith("3 of 3 users: no answer of the model could be read")
            assert "mar alone" not in shown.out
            ill, asked = False, len(server.bodies)
            again = cli(*command, *out, "--json")
            assert (again.code, again.json["unparsable_users"], len(server.bodies)) == (1, 3, asked)
            retried = cli(*command, *out, "--json", "--retry-unparsable")
            assert (retried.code, retried.json["unparsable_users"]) == (0, 0)
            assert "mar" in retried.json["components"]
            assert len(server.bodies) == asked + 3, "only the unreadable answers are asked again"
            fresh = cli(*command, "--out", tmp_path / "other", "--json")
            assert (fresh.json["unparsable_users"], len(server.bodies)) == (0, asked + 3), "they replaced the old ones"

    def test_no_usage_is_unknown_dollars_and_the_budget_still_ends_the_run(
        self, tmp_path: Path, cli: CommandLine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cases_file(tmp_path / "cases.jsonl", 3)

        def respond(body: Body) -> Reply:
            message = {"role": "assistant", "content": sensible(body).content}
            return Reply(raw=json.dumps({"model": "m", "choices": [{"message": message}]}).encode())

        with FakeOpenAI(respond) as server:
            prices = tmp_path / "prices.toml"
            prices.write_text(
                f'dated = 2026-11-01\nsource = "a test"\n[models."{server.model()}"]\ninput = 1000.0\noutput = 2000.0\n'
            )
            command = ("evaluate", tmp_path / "cases.jsonl", "--ranker", "listwise", "--model", server.model())
            monkeypatch.setenv("MLLM3REC_PRICES", str(prices))
            ended = cli(*command, "--out", tmp_path / "run", "--budget-usd", "6", "--json")
            assert ended.code == 3
            assert 0 < len(server.bodies) < 9
            spent = [json.loads(line) for line in (tmp_path / "run" / "ledger.jsonl").read_text().splitlines()]
            assert not any(call.get("usd") for call in spent if not call.get("in_flight"))
