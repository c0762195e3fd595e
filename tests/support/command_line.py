"""The command line, in this process and in one of its own."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
from typer.testing import CliRunner, Result

from mllm3rec.cli.main import app, main
from programs.runtime.environment import variable


@dataclass(frozen=True)
class Ended:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its standard output, which must be one JSON object."""
        return json.loads(self.out)


class CommandLine(Protocol):
    """Runs a command as `mllm3rec` does; an error that it does not handle itself fails the test."""

    def __call__(self, *arguments: object) -> Ended: ...


def command_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    """The command line of a test with these fixtures."""

    def call(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["mllm3rec", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        code = ended.value.code or 0
        assert isinstance(code, int)
        return Ended(code, said.out, said.err)

    return call


def run(*arguments: object) -> Result:
    """A command on a wide terminal, without the handling of its errors: they are in `Result.exception`."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(argument) for argument in arguments])


def process_of(*arguments: object) -> list[str]:
    """How a process of its own runs a command."""
    return [sys.executable, "-m", "mllm3rec", *map(str, arguments)]


def buffered_environment() -> dict[str, str]:
    """The environment of this process, without the variable that hides that a command keeps its output back."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@contextmanager
def commands_in(folder: Path) -> Iterator[None]:
    """The environment of commands whose results several tests share: a cache of their own, and no weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(variable("cache"), str(folder / "cache"))
        patch.setenv(variable("encoder"), "hashing")
        yield
