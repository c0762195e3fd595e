"""Two processes with the same jobs: each leaves alone what the other has done meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from programs.batch.job_keeper import JobKeeper
from programs.batch.job_table import JobRow
from programs.batch.openai_form import OpenAIForm
from programs.batch.provider import JobProgress
from programs.lm.roles import local_roles
from tests.support.batch_server import BatchServer
from tests.support.batch_sessions import by_batches, paid_calls
from tests.support.fake_server import Body, Reply, sensible


def without_logprobs(body: Body) -> Reply:
    """A server that refuses a parameter."""
    return Reply("unknown field: logprobs", status=400) if body.get("logprobs") else sensible(body)


def test_a_refused_job_that_another_process_has_created_anew_goes_on(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = folder("run")
    with BatchServer() as server:
        server.interrupt_at_look = 1
        with pytest.raises(KeyboardInterrupt):
            by_batches(local_roles(server.model()), here)
        keeper = JobKeeper()
        (job,) = keeper.table.jobs()

        def refused(provider: OpenAIForm, seen: JobRow) -> JobProgress:
            keeper.table.update(job.id, batch_id="batch-of-the-other-process")
            return JobProgress(ended=True, answered=0, failure="refused")

        monkeypatch.setattr(OpenAIForm, "progress", refused)
        assert keeper.look(job).state == "created"
    assert Path(job.path).exists()
    keeper.close()


@pytest.mark.parametrize("respond", [sensible, without_logprobs])
def test_what_another_process_fetches_during_a_wave_is_not_asked_again(
    folder: Callable[[str], Path], respond: Callable[[Body], Reply]
) -> None:
    here = folder("run")
    with BatchServer(respond=respond) as server:
        roles = local_roles(server.model())
        server.interrupt_at_look = 1
        with pytest.raises(KeyboardInterrupt):
            by_batches(roles, here)
        server.interrupt_at_look = 0

        def fetch() -> None:
            keeper = JobKeeper()
            for job in keeper.table.jobs():
                while keeper.look(job).state == "created":
                    pass
            keeper.close()

        rows = by_batches(roles, here, after_wave=fetch)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert all(len(set(fates)) == len(fates) for fates in server.submitted.values())
    assert len(paid_calls(here)) == sum(map(len, server.submitted.values()))
