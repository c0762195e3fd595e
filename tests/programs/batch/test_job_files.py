"""Division of questions into jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from programs.batch import job_keeper
from programs.batch.job_files import write_job
from programs.batch.job_keeper import JOB_ATTEMPTS
from programs.batch.job_table import JobRow
from programs.batch.openai_form import OpenAIForm
from programs.lm.roles import local_roles
from programs.runtime.errors import InputError
from tests.support.batch_server import BatchServer, FakeBatch
from tests.support.batch_sessions import by_batches, paid_calls
from tests.support.fake_server import Body
from tests.support.small_shop import CASE


@pytest.mark.parametrize(("limit", "value"), [("most_lines", 2), ("most_bytes", 4000)])
def test_a_wave_above_the_limits_of_a_provider_is_several_jobs(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    monkeypatch.setattr(OpenAIForm, limit, value)
    with BatchServer() as server:
        rows = by_batches(local_roles(server.model()), folder("run"))
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert server.paid_twice() == []
    uploaded = [content for name, content, _ in server.files.values() if name.startswith("mllm3rec")]
    assert len(uploaded) > 3
    if limit == "most_lines":
        assert max(len(content.splitlines()) for content in uploaded) == value
    else:
        assert all(len(content) <= value or len(content.splitlines()) == 1 for content in uploaded)


def test_jobs_above_what_a_provider_works_on_at_a_time_begin_later(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenAIForm, "most_lines", 1)
    here = folder("run")
    with BatchServer() as server:
        server.most_at_work = 2
        rows = by_batches(local_roles(server.model()), here)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert server.paid_twice() == []
    assert len(server.batches) == len(paid_calls(here)) > 5


def test_jobs_above_the_limit_of_enqueued_tokens_are_created_again(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenAIForm, "most_lines", 1)
    here = folder("run")
    with BatchServer() as server:
        server.most_enqueued = 2
        rows = by_batches(local_roles(server.model()), here)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert server.paid_twice() == []
    failed = [batch for batch in server.batches.values() if batch.status == "failed"]
    assert len(failed) > 2
    assert len(server.batches) == len(failed) + len(paid_calls(here))
    assert len([name for name, _, _ in server.files.values() if name.startswith("mllm3rec")]) == len(paid_calls(here))


def test_a_job_that_alone_is_above_the_limit_of_enqueued_tokens(folder: Callable[[str], Path]) -> None:
    here = folder("run")
    with BatchServer() as server:
        roles = local_roles(server.model())
        server.most_enqueued = 1
        with pytest.raises(ConnectionError, match="run the same command later"):
            by_batches(roles, here)
        assert {batch.status for batch in server.batches.values()} == {"failed"}
        assert len(server.batches) == JOB_ATTEMPTS
        server.most_enqueued = 100
        rows = by_batches(roles, here)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert server.paid_twice() == []


def test_a_job_above_the_limit_of_enqueued_tokens_is_halved_until_it_is_taken(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_keeper, "FEWEST_LINES", 1)
    here = folder("run")
    with BatchServer() as server:
        server.most_enqueued = 2
        rows = by_batches(local_roles(server.model()), here)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert server.paid_twice() == []
    ended = [len(batch.lines) for batch in server.batches.values() if batch.status == "completed"]
    assert max(ended) == 2
    assert sum(ended) == len(paid_calls(here))


def test_a_session_that_dies_while_a_job_is_halved_pays_nothing_twice(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_keeper, "FEWEST_LINES", 1)
    here = folder("run")
    written: list[JobRow] = []

    def dies(*args: Any) -> JobRow:
        if len(written) == 2:  # the second half of the first job
            raise KeyboardInterrupt
        written.append(write_job(*args))
        return written[-1]

    with BatchServer() as server:
        roles = local_roles(server.model())
        server.most_enqueued = 2
        with monkeypatch.context() as first:
            first.setattr(job_keeper, "write_job", dies)
            with pytest.raises(KeyboardInterrupt):
                by_batches(roles, here)
        rows = by_batches(roles, here)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert server.paid_twice() == []
    assert len(paid_calls(here)) == len(server.bodies)


def test_a_job_waits_for_those_of_another_run(folder: Callable[[str], Path]) -> None:
    here = folder("run")
    with BatchServer(looks=3 * JOB_ATTEMPTS) as server:
        roles = local_roles(server.model())
        server.interrupt_at_look = 1
        with pytest.raises(KeyboardInterrupt):
            by_batches(roles, here)
        server.interrupt_at_look = 0
        server.most_enqueued = len(server.batches["batch-0"].lines)
        history = tuple(one.model_copy(update={"item_id": "I-lamp"}) for one in CASE.history)
        other = CASE.model_copy(update={"history": history, "candidates": CASE.candidates[3:]})
        rows = by_batches(roles, here.with_name("other run"), cases=[other])
        assert server.batches["batch-0"].status == "completed"
        assert len(server.batches) > JOB_ATTEMPTS
        assert {row["status"] for row in rows.values()} == {"ok"}
        by_batches(roles, here)
    assert server.paid_twice() == []
    assert len(paid_calls(here)) + len(paid_calls(here.with_name("other run"))) == len(server.bodies)


def test_a_refusal_ends_the_run_after_the_other_jobs(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenAIForm, "most_lines", 2)
    here = folder("run")

    class Refusing(BatchServer):
        def _created(self, asked: Body) -> FakeBatch:
            self.refuse_batches = "" if self.batches else "your organization must be verified"
            return super()._created(asked)

    with Refusing(looks=3) as server:
        roles = local_roles(server.model())
        with pytest.raises(InputError, match="must be verified"):
            by_batches(roles, here)
        states = [batch.status for batch in server.batches.values()]
        assert states == ["failed", *["completed"] * (len(states) - 1)]
        assert len(paid_calls(here)) == len(server.bodies) > 0
        by_batches(roles, here)
    assert server.paid_twice() == []


def test_the_files_of_jobs_are_private_and_gone_in_the_end(folder: Callable[[str], Path]) -> None:
    here = folder("run")
    with BatchServer() as server:
        by_batches(local_roles(server.model()), here)
    left = {path.name for path in (here / "cache" / "batches").iterdir()}
    assert left <= {"jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm", "lock"}
    assert (here / "cache" / "batches" / "jobs.sqlite").stat().st_mode & 0o077 == 0
