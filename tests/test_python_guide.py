"""The snippets of docs/python.md, run one after another as they stand; only the address of the server differs."""

from __future__ import annotations

import re
from pathlib import Path

import dspy
import pytest

import mllm3rec as m3
from programs.runtime.environment import variable
from tests.support.compile_setup import sensitive
from tests.support.fake_server import FakeOpenAI
from tests.support.paths import ROOT

GUIDE = (ROOT / "docs" / "python.md").read_text("utf-8")
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.MULTILINE | re.DOTALL)
ADDRESS = "http://localhost:8000/v1"


def test_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(variable("encoder"), "hashing")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "guide"}
    with FakeOpenAI(sensitive) as server:
        try:
            for snippet in SNIPPETS:
                exec(compile(snippet.replace(ADDRESS, server.url), "docs/python.md", "exec"), names)  # noqa: S102
        finally:
            dspy.configure(lm=None)  # one of them configures DSPy
    said = capsys.readouterr().out
    assert "no ranker 'piror': did you mean 'prior'" in said and "budget of 1 calls" in said
    assert isinstance(names["part"], m3.Evaluation) and not names["part"].complete
    assert isinstance(names["compiled"], m3.Program) and names["compiled"].manifest


def test_every_public_name_is_on_the_page() -> None:
    missing = [name for name in m3.__all__ if not name.startswith("__") and not re.search(rf"\b{name}\b", GUIDE)]
    assert missing == []
