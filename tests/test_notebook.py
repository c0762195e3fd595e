"""The notebook of the documentation: its cells run, with the fake server as the model."""

from __future__ import annotations

import json
from pathlib import Path

import dspy
import pytest

import mllm3rec as m3
from programs.runtime.environment import variable
from tests.support.compile_setup import sensitive
from tests.support.fake_server import FakeOpenAI
from tests.support.paths import ROOT

PATH = ROOT / "docs" / "notebooks" / "compile-in-ten-minutes.ipynb"
CELLS = [cell for cell in json.loads(PATH.read_text("utf-8"))["cells"] if cell["cell_type"] == "code"]
MODEL = "local/smollm2-135m"


def test_cells_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(variable("encoder"), "hashing")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    names: dict[str, object] = {"__name__": "notebook"}
    sources = ["".join(cell["source"]) for cell in CELLS]
    assert sum(source.count(MODEL) for source in sources) == 1
    with FakeOpenAI(sensitive) as server:
        try:
            for source in sources:
                exec(compile(source.replace(MODEL, server.model()), PATH.name, "exec"), names)  # noqa: S102
        finally:
            dspy.enable_logging()  # a cell turns it off
    assert "verdict: " in capsys.readouterr().out
    assert isinstance(names["after"], m3.Evaluation) and names["after"].complete and names["after"].against


def test_outputs_are_complete_and_small() -> None:
    assert [cell["execution_count"] for cell in CELLS] == list(range(1, len(CELLS) + 1))
    outputs = [output for cell in CELLS for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} == {"stream", "execute_result"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}, "no warnings"
    assert PATH.stat().st_size < 200_000
