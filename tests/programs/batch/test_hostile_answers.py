"""Providers whose answers are not what was asked for: nothing is taken for an answer, and nothing is asked for ever."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from programs.batch.job_keeper import MOST_TIMES
from programs.runtime.environment import variable
from programs.runtime.errors import InputError
from tests.support.batch_server import BatchServer, FakeBatch
from tests.support.batch_sessions import GOOGLE, RolesOn, by_batches, by_calls, paid_calls
from tests.support.fake_server import Body

Spoil = Callable[[list[Body]], list[Body]]


class SpoiltServer(BatchServer):
    """A server that does something to the answers of its first batches.

    Args:
        spoil: From answers in Google's form to those that are sent.
        batches: How many batches.
    """

    def __init__(self, spoil: Spoil, batches: int = 1) -> None:
        super().__init__()
        self._spoil = spoil
        self._spoilt = batches

    def _worked(self, batch: FakeBatch) -> None:
        before = batch.status
        super()._worked(batch)
        if batch.status != before and int(batch.id.partition("-")[2]) < self._spoilt:
            answers = self._spoil([json.loads(line) for line in batch.output.splitlines()])
            batch.output = b"".join(json.dumps(answer).encode() + b"\n" for answer in answers)


def without_metadata(answers: list[Body]) -> list[Body]:
    return [{"response": answer["response"]} for answer in answers]


def beside_foreign_ones(answers: list[Body]) -> list[Body]:
    foreign = [{"metadata": {"key": key}, "response": answers[0]["response"]} for key in ("f" * 64, 7, None, ["x"])]
    return [*foreign, *answers, {**answers[0], "response": {"candidates": "a second answer"}}]


def unreadable(answers: list[Body]) -> list[Body]:
    bodies: list[object] = [7, "x", [], {"candidates": 7}, {"usageMetadata": {"promptTokenCount": -1}}]
    return [{**answer, "response": bodies[n % len(bodies)]} for n, answer in enumerate(answers)]


def immense(answers: list[Body]) -> list[Body]:
    for answer in answers:
        answer["response"]["usageMetadata"] = {"promptTokenCount": 10**30, "candidatesTokenCount": 10**400}
    return answers


@pytest.mark.parametrize("spoil", [without_metadata, beside_foreign_ones, unreadable, immense])
def test_the_same_rows_in_spite_of_odd_answers(
    spoil: Spoil, folder: Callable[[str], Path], google: RolesOn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with SpoiltServer(spoil) as server:
        monkeypatch.setenv(variable("prices"), str(server.prices(tmp_path / "prices.toml", (GOOGLE,))))
        roles = google(server)
        assert by_batches(roles, folder("run")) == by_calls(roles, folder("calls"))
    calls = paid_calls(folder("run"))
    assert len({call.id for call in calls}) == len(calls)
    # A text with unreadable usage counts at its upper estimate, and so does an answer that cannot be read.
    paid = sum((call.usd or 0.0) + (call.most_usd or 0.0) for call in calls)
    assert (paid < server.bill) == (spoil is without_metadata)


def test_a_provider_that_answers_other_questions_is_given_up(folder: Callable[[str], Path], google: RolesOn) -> None:
    def swapped(answers: list[Body]) -> list[Body]:
        return [{**answer, "metadata": {"key": f"{n:064x}"}} for n, answer in enumerate(answers)]

    with SpoiltServer(swapped, batches=99) as server:
        with pytest.raises(InputError, match="answers to other questions than theirs"):
            by_batches(google(server), folder("run"))
        assert len(server.batches) == MOST_TIMES
