"""Two processes with the same jobs: each leaves alone what the other has done meanwhile."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from programs.batch.job_keeper import JobKeeper
from programs.batch.job_table import JobRow, JobTable
from programs.batch.openai_form import OpenAIForm
from programs.batch.provider import JobProgress
from programs.lm.cache_contents import answer_counts
from programs.lm.endpoints import model_name
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import local_roles
from programs.runtime.environment import cache_dir
from programs.runtime.errors import InputError
from tests.support.batch_server import BatchServer
from tests.support.batch_sessions import by_batches, paid_calls
from tests.support.fake_server import Body, Reply, sensible


def without_logprobs(body: Body) -> Reply:
    """A server that refuses a parameter."""
    return Reply("unknown field: logprobs", status=400) if body.get("logprobs") else sensible(body)


@pytest.mark.parametrize("answered", [0, 1])
def test_a_refused_job_that_another_process_has_created_anew_goes_on(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, answered: int
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
            return JobProgress(ended=True, answered=answered, failure="refused")

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


@pytest.mark.parametrize("state", ["created", "uploaded"])
def test_lines_that_are_cancelled_in_another_terminal_are_not_submitted_again(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, state: str
) -> None:
    here = folder("run")
    cancelled: list[JobRow] = []
    look = JobKeeper.look

    def cancelled_at_the_first_look(keeper: JobKeeper, job: JobRow) -> JobRow:
        if not cancelled:
            other = JobKeeper()
            cancelled.extend(one for one in other.table.jobs() if one.state == state)
            for one in cancelled:
                other.cancel(one)
            other.close()
        return look(keeper, job)

    with BatchServer(looks=2) as server:
        if state == "uploaded":
            monkeypatch.setattr(OpenAIForm, "most_lines", 2)
            server.most_enqueued = 2
        monkeypatch.setattr(JobKeeper, "look", cancelled_at_the_first_look)
        with pytest.raises(InputError, match="cancelled by `mllm3rec batch cancel`; run the same command"):
            by_batches(local_roles(server.model()), here)
        asked = [batch.lines for batch in server.batches.values() if batch.status != "failed"]
        assert len({key for lines in asked for key, _ in lines}) == sum(map(len, asked))
        rows = by_batches(local_roles(server.model()), here)
    assert {row["status"] for row in rows.values()} == {"ok"}


def test_a_job_that_another_process_has_fetched_meanwhile_is_not_cancelled(folder: Callable[[str], Path]) -> None:
    here = folder("run")
    with BatchServer() as server:
        server.interrupt_at_look = 1
        with pytest.raises(KeyboardInterrupt):
            by_batches(local_roles(server.model()), here)
        server.interrupt_at_look = 0
        use_response_cache(cache_dir() / "calls.sqlite")
        keeper, other = JobKeeper(), JobKeeper()
        listed = keeper.table.jobs()
        for job in listed:
            while other.look(job).state == "created":
                pass
        paid = [call for job in listed for call in keeper.table.calls_of(job.owner)]
        for job in listed:
            keeper.cancel(job)
        assert {keeper.table.job(job.id).state for job in listed} == {"fetched"}
        assert paid and [call for job in listed for call in keeper.table.calls_of(job.owner)] == paid
        keeper.close()
        other.close()


def test_answers_of_batches_belong_to_their_model_and_role(folder: Callable[[str], Path]) -> None:
    here = folder("run")
    with BatchServer() as server:
        by_batches(local_roles(server.model()), here)
        counts = answer_counts(cache_dir())
    assert {one.role for one in counts} == {"mope", "mote", "mar"}
    assert {one.model for one in counts} == {model_name(local_roles(server.model()).mar)}


def test_a_table_of_an_older_version_opens(tmp_path: Path) -> None:
    path = tmp_path / "jobs.sqlite"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE jobs (id TEXT PRIMARY KEY, owner TEXT NOT NULL, provider TEXT NOT NULL, address TEXT NOT NULL"
            ", model TEXT NOT NULL, key_variable TEXT, path TEXT NOT NULL, sha256 TEXT NOT NULL, lines INTEGER NOT NULL"
            ", most_usd REAL, price TEXT, state TEXT NOT NULL, file_id TEXT NOT NULL DEFAULT '', "
            "batch_id TEXT NOT NULL DEFAULT '', written REAL NOT NULL, submitted REAL, "
            "answered INTEGER NOT NULL DEFAULT 0)"
        )
        database.execute(
            "INSERT INTO jobs VALUES ('j', 'o', 'openai', 'a', 'm', NULL, 'p', 's', 1, NULL, NULL, 'created', "
            "'file-1', 'batch-1', 1.0, 2.0, 0)"
        )
    for _ in range(2):
        with closing(JobTable(path)) as table:
            (job,) = table.jobs()
            assert (job.batch_id, bool(job.cancelled)) == ("batch-1", False)
