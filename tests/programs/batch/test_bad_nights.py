"""Runs whose lines fail for a whole session: the next session asks again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from evaluate.runs.run import MAX_FAILURES_IN_A_ROW
from programs.lm.roles import local_roles
from programs.runtime.errors import InputError
from tests.support.batch_server import BatchServer
from tests.support.batch_sessions import by_batches
from tests.support.fake_server import Body, Reply, sensible
from tests.support.small_shop import CASE

MANY = [
    CASE.model_copy(update={"user_id": f"u{n}", "candidates": CASE.candidates[:2]})
    for n in range(MAX_FAILURES_IN_A_ROW + 2)
]


def test_lines_that_all_expire_are_asked_again_in_the_next_session(folder: Callable[[str], Path]) -> None:
    fate = "expired"
    with BatchServer(lambda key, before: fate, looks=0) as server:
        roles, here = local_roles(server.model()), folder("run")
        rows = by_batches(roles, here, cases=MANY)
        assert len(rows) == len(MANY)
        assert {row["status"] for row in rows.values()} == {"failed"}
        assert all("several times in batches" in row["error"] for row in rows.values())
        fate = "ok"
        rows = by_batches(roles, here, cases=MANY)
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_questions_that_are_all_refused_are_asked_again_in_the_next_session(folder: Callable[[str], Path]) -> None:
    refusing = True

    def respond(body: Body) -> Reply:
        return Reply("the prompt is odd", status=400) if refusing else sensible(body)

    with BatchServer(respond=respond, looks=0) as server:
        roles, here = local_roles(server.model()), folder("run")
        with pytest.raises(InputError, match="failed in a row"):
            by_batches(roles, here, cases=MANY)
        refusing = False
        rows = by_batches(roles, here, cases=MANY)
    assert {row["status"] for row in rows.values()} == {"ok"}
