"""Sessions of runs by batches, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import dspy
import pytest

from programs.batch import job_keeper, run
from programs.lm.roles import Roles, local_roles
from programs.runtime.environment import variable
from tests.support.batch_server import BatchServer
from tests.support.batch_sessions import ANTHROPIC, GOOGLE, RolesOn, all_on


@pytest.fixture(autouse=True)
def hurried_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks at jobs follow each other at once."""
    monkeypatch.setattr(run, "LOOK_EVERY", (0.0, 0.0))
    monkeypatch.setattr(job_keeper, "SETTLING", 0.0)
    monkeypatch.setattr(job_keeper, "_FIRST_PAUSE", 0.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Path]]:
    """Folders, each with a cache of its own."""
    before = dspy.cache

    def made(name: str) -> Path:
        monkeypatch.setenv(variable("cache"), str(tmp_path / name / "cache"))
        return tmp_path / name

    yield made
    dspy.cache = before


@pytest.fixture
def anthropic(monkeypatch: pytest.MonkeyPatch) -> RolesOn:
    """Roles whose model is behind Anthropic's interface."""

    def roles(server: BatchServer) -> Roles:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-0123456789")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        return all_on(server, ANTHROPIC)

    return roles


@pytest.fixture
def google(monkeypatch: pytest.MonkeyPatch) -> RolesOn:
    """Roles whose model is behind Google's interface."""

    def roles(server: BatchServer) -> Roles:
        monkeypatch.setenv("GEMINI_API_KEY", "AIza-0123456789")
        monkeypatch.setenv("GEMINI_BASE_URL", server.google_url)
        return all_on(server, GOOGLE)

    return roles


@pytest.fixture
def roles_on(request: pytest.FixtureRequest) -> RolesOn:
    """By the name of a dialect."""
    if request.param == "openai":
        return lambda server: local_roles(server.model())
    found: RolesOn = request.getfixturevalue(request.param)
    return found
