"""What compiles of several tests start from, and one finished compile for tests that look at one or go on from it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from evaluate.protocol.cases import Cases
from optimize.artifact import ArtifactManifest
from optimize.compiler import Compiler
from programs.lm.response_cache import use_response_cache
from programs.lm.roles import Roles
from programs.runtime.environment import variable
from tests.support.backends import roles_on, served
from tests.support.cases import cases_file
from tests.support.compile_setup import compiler, sensitive
from tests.support.fake_server import FakeOpenAI
from tests.support.tiny_model import need_training, write_tiny_model

ANSWERS = "calls.sqlite"


@dataclass(frozen=True)
class Finished:
    """A compile on eight users with four trials. Its server still answers.

    Attributes:
        served: Calls, and tokens in and out, that the server had counted when it ended.
    """

    made: Compiler
    manifest: ArtifactManifest
    cases: Cases
    roles: Roles
    server: FakeOpenAI
    served: tuple[int, int, int]

    def copy(self, folder: Path) -> Path:
        """A copy to go on from or to damage; what was paid for is in the response cache of the test."""
        shutil.copy(self.made.directory.parent / ANSWERS, folder / ANSWERS)
        use_response_cache(folder / ANSWERS)
        return Path(shutil.copytree(self.made.directory, folder / "art"))


@pytest.fixture
def hashing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prior's encoder that needs no weights."""
    monkeypatch.setenv(variable("encoder"), "hashing")


@pytest.fixture
def cases(tmp_path: Path) -> Cases:
    """Ten dev users."""
    return cases_file(tmp_path / "dev.jsonl", 10)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model to fine-tune; tests are skipped without the packages to train it."""
    need_training()
    return write_tiny_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    """The compile; tests work on copies."""
    folder = tmp_path_factory.mktemp("compiled")
    cases = cases_file(folder / "dev.jsonl", 8)
    store = use_response_cache(folder / ANSWERS)
    with FakeOpenAI(sensitive) as server:
        roles = roles_on(server)
        made = compiler(folder / "art", cases, roles)
        manifest = made.run()
        made.ledger.close()
        store.close()
        yield Finished(made, manifest, cases, roles, server, served(server))
