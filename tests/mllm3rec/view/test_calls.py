"""The calls of a user, made again from the response cache: those that a server got, or not kept; nothing is sent."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mllm3rec.view.calls import UserCalls, calls_of_user
from mllm3rec.view.library import Library
from mllm3rec.view.run_facts import ViewedRun
from programs.lm.response_cache import use_response_cache
from programs.runtime.environment import variable
from tests.support.cases import cases_file
from tests.support.command_line import commands_in, run
from tests.support.fake_server import Body, FakeOpenAI, Reply, sensible


def unreadable_at_first(body: Body) -> Reply:
    """As `sensible`, but the first ranking of everybody cannot be read."""
    answer = sensible(body)
    first = "ranking" in answer.content and body.get("temperature") == 0.0
    return Reply("I would rather not say.") if first else answer


@dataclass(frozen=True)
class Ran:
    """A run of two users on a server that still answers, and its folder."""

    folder: Path
    server: FakeOpenAI
    cache: Path

    def calls(self, name: str, user: int = 0) -> UserCalls:
        """Of one of its users, by the response cache of the run."""
        viewed = self.run(name)
        assert viewed.cases is not None
        viewed.rows.extend()
        row = viewed.rows.find(viewed.rows.users()[user].user_id)
        assert row is not None
        return calls_of_user(viewed.manifest, viewed.cases, row, viewed.ledger, {})

    def run(self, name: str) -> ViewedRun:
        """One of its runs."""
        return Library(self.folder).run(name)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    """Two rankers: one is asked for everything, the other finds the traits in the trait store."""
    folder = tmp_path_factory.mktemp("calls")
    cases_file(folder / "cases.jsonl", 2, part="test")
    with FakeOpenAI(unreadable_at_first) as server, commands_in(folder):
        for name, ranker in (("first", "listwise"), ("second", "embedding")):
            options = ("--model", server.model(), "--explain", 2, "--out", folder / name)
            made = run("evaluate", folder / "cases.jsonl", "--ranker", ranker, *options)
            assert made.exit_code == 0, made.output
        yield Ran(folder, server, folder / "cache" / "calls.sqlite")


@pytest.fixture
def cache(ran: Ran) -> Path:
    """The run's response cache, in use."""
    use_response_cache(ran.cache)
    return ran.cache


def test_messages_are_those_that_the_server_got(ran: Ran, cache: Path) -> None:
    sent = len(ran.server.bodies)
    found = ran.calls("first")
    assert (found.missing, found.same) == ("", True)
    bodies = [body["messages"] for body in ran.server.bodies]
    assert all(list(call.messages) in bodies for call in found.calls)
    assert all(call.recorded for call in found.calls)
    assert {call.role for call in found.calls} == {"mope", "mote", "mar", "judge"}
    first = next(call for call in found.calls if call.role == "mar")
    assert first.answer == "I would rather not say."
    assert first.parsed is None
    assert first.problem
    again = [call for call in found.calls if call.role == "mar"][1]
    assert again.parsed is not None
    assert "ranking" in again.parsed
    assert len(ran.server.bodies) == sent  # nobody was asked


def test_hits_are_told_from_calls_that_were_sent(ran: Ran, cache: Path) -> None:
    hits = {call.role: all(one.hit for one in call.recorded) for call in ran.calls("second").calls}
    assert hits["mope"]
    assert hits["mote"]
    assert not hits["mar"]


def test_every_call_of_the_ledger_is_about_some_user(ran: Ran, cache: Path) -> None:
    shown = {call.about for user in (0, 1) for call in ran.calls("first", user).calls}
    ledger = (ran.folder / "first" / "ledger.jsonl").read_text()
    for line in ledger.splitlines():
        assert any(f'"about":"{about}"' in line for about in shown)


def test_what_is_not_in_the_cache_is_not_kept(ran: Ran, tmp_path: Path) -> None:
    use_response_cache(tmp_path / "empty.sqlite")
    sent = len(ran.server.bodies)
    found = ran.calls("first")
    assert "not kept" in found.missing
    assert found.same is None
    # The questions that need no other answer are known, and that the run asked them.
    assert {call.role for call in found.calls} == {"mope", "mote"}
    assert all(call.answer is None and call.recorded for call in found.calls)
    assert len(ran.server.bodies) == sent


def test_no_vector_is_asked_for(ran: Ran, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable("encoder"), ran.server.model("embedder"))
    sent = len(ran.server.bodies)
    assert ran.calls("second").missing.startswith("Answers that are not in the response cache")
    monkeypatch.setenv(variable("encoder"), "openai")  # without a key
    assert ran.calls("second").missing.startswith("Answers that are not in the response cache")
    assert len(ran.server.bodies) == sent


def test_another_prompt_is_not_taken_for_the_one_that_was_sent(
    ran: Ran, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from signatures.rows import Case

    viewed = ran.run("first")
    assert viewed.cases is not None
    viewed.rows.extend()
    row = viewed.rows.find(viewed.rows.users()[0].user_id)
    assert row is not None
    case = viewed.cases.find(row.user_id)
    assert case is not None
    shorter = Case.model_validate(case.model_dump() | {"history": case.history[:1]})
    monkeypatch.setattr(viewed.cases, "find", lambda user: shorter)
    found = calls_of_user(viewed.manifest, viewed.cases, row, viewed.ledger, {})
    assert len(case.history) > 1
    assert not next(call for call in found.calls if call.role == "mope").recorded


@pytest.mark.parametrize("ranker", ["prior"])
def test_a_ranker_without_a_model_has_no_calls(ran: Ran, ranker: str) -> None:
    assert run("evaluate", ran.folder / "cases.jsonl", "--ranker", ranker, "--out", ran.folder / ranker).exit_code == 0
    assert "no language model" in ran.calls(ranker).missing
