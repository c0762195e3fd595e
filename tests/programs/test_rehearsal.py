"""A forecast knows every question that a program asks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from programs.program import PROGRAMS, WITHOUT_MODEL
from programs.rehearsal import Rehearsal
from signatures.rows import Status
from signatures.schema import CONSUMER
from tests.support.backends import roles_on
from tests.support.fake_server import FakeOpenAI
from tests.support.small_shop import CASE, parts_on


@pytest.mark.parametrize("name", sorted(set(PROGRAMS) - WITHOUT_MODEL - {"tuned-profiles"}))
def test_every_program_is_rehearsed_to_its_end(name: str) -> None:
    with FakeOpenAI() as server:
        parts = parts_on(server, explain=1)
        if name == "rerank":
            parts.backends.roles = roles_on(server).with_models(mar=f"{server.url}/v1/rerank#fake")
        rehearsal = Rehearsal(parts.backends, CONSUMER)
        ranking = PROGRAMS[name](replace(parts, backends=rehearsal)).rank(CASE)
        assert server.bodies == []
    assert (ranking.status, ranking.unparsable, ranking.error) == (Status.OK, 0, None)
    assert rehearsal.ledger.total().calls > 0
