"""Division of questions into jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from programs.batch.openai_form import OpenAIForm
from programs.lm.roles import local_roles
from tests.support.batch_server import BatchServer
from tests.support.batch_sessions import by_batches, paid_calls


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


def test_the_files_of_jobs_are_private_and_gone_in_the_end(folder: Callable[[str], Path]) -> None:
    here = folder("run")
    with BatchServer() as server:
        by_batches(local_roles(server.model()), here)
    left = {path.name for path in (here / "cache" / "batches").iterdir()}
    assert left <= {"jobs.sqlite", "jobs.sqlite-wal", "jobs.sqlite-shm", "lock"}
    assert (here / "cache" / "batches" / "jobs.sqlite").stat().st_mode & 0o077 == 0
