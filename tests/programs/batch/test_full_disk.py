"""A response cache that cannot be written when answers arrive: they are paid, so they stay where they are."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from programs.batch.job_table import JobTable
from programs.lm.roles import local_roles
from programs.runtime import key_value_store
from programs.runtime.errors import InputError
from tests.support.batch_server import BatchServer
from tests.support.batch_sessions import by_batches


def test_answers_that_cannot_be_kept_stay_at_the_provider(
    folder: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_value_store, "_PATIENCE", 0.1)
    here = folder("run")
    with BatchServer() as server:
        roles = local_roles(server.model())
        other = []

        def lock() -> None:
            other.append(sqlite3.connect(here / "cache" / "calls.sqlite", isolation_level=None))
            other[0].execute("BEGIN IMMEDIATE")

        with pytest.raises(InputError, match="the same command gets them again"):
            by_batches(roles, here, after_wave=lock)
        with closing(JobTable(here / "cache" / "batches" / "jobs.sqlite")) as table:
            (job,) = table.jobs()
        assert job.state == "ended"
        assert Path(job.path).exists()
        other[0].close()
        rows = by_batches(roles, here)
    assert {row["status"] for row in rows.values()} == {"ok"}
    assert server.paid_twice() == []
