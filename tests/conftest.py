"""Every test gets a response cache and a cache folder of its own, and no keys; and fixtures that many tests use."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "true")
# Fits of the tests are so small that their threads mostly wait for one another, for minutes on a busy machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import dspy
import pytest
from hypothesis import settings
from tenacity import wait_fixed

from programs.lm import circuit_breaker, rate_limiter, role_lm
from programs.lm.response_cache import use_response_cache
from programs.runtime.environment import Environment, variable
from tests.support.browser import started
from tests.support.command_line import CommandLine, command_line
from tests.support.fake_server import FakeOpenAI

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

# Tests must not depend on how busy the machine is.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(autouse=True, scope="session")
def ctrl_c() -> None:
    """Ctrl-C takes effect, also where a shell started the tests in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def hermetic(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of one test, or of this machine, reaches another test."""
    if "llm" not in request.keywords:  # those need the weights that were fetched into the real cache folder
        monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path / "cache"))
    ours = [variable(name) for name in Environment.model_fields if name not in ("cache", "threads")]
    for key in (*ours, "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(key, raising=False)
    before = dspy.cache
    store = use_response_cache(":memory:")
    yield
    store.close()
    dspy.cache = before


@pytest.fixture
def server() -> Iterator[FakeOpenAI]:
    """A server that answers everything sensibly."""
    with FakeOpenAI() as fake:
        yield fake


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line in this process."""
    return command_line(monkeypatch, capsys)


@pytest.fixture(scope="module")
def chrome(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A browser."""
    with started(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def own_prices(tmp_path: Path) -> Path:
    """A user's own prices: a rebate on a shipped price, and a machine by the hour."""
    path = tmp_path / "own.toml"
    path.write_text(
        """
dated = 2026-01-31
source = "our contract"
[models]
"openai/gpt-4o" = { input = 1.0, output = 2.0, source = "a rebate" }
"local/smollm2-135m" = { usd_per_hour = 0.36 }
""",
        "utf-8",
    )
    return path


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits that no server asked for are short, and what is dead stays so for the rest of the test."""
    monkeypatch.setattr(rate_limiter, "_FIRST_BACKOFF", 0.05)
    monkeypatch.setattr(rate_limiter, "MAX_BACKOFF", 0.2)
    monkeypatch.setattr(role_lm, "_BACKOFF", wait_fixed(0.05))
    monkeypatch.setattr(circuit_breaker, "COOL_DOWN", 3600.0)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """A run in which no browser looked at the report does not look like one in which one did."""
    yield  # the last line is the one that is read
    if any("browser" in skipped.keywords for skipped in terminalreporter.getreports("skipped")):
        terminalreporter.write_line("BROWSER TESTS DID NOT RUN: install chromium and chromium-driver", red=True)
