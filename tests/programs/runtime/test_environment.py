"""Environment variables: read when asked, refused by name."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from programs.lm.llama_cpp import LocalEngine
from programs.runtime.environment import KEY_PREFIX, Environment, cache_dir, environment, variable
from programs.runtime.errors import InputError
from tests.support.paths import ROOT


def test_nothing_is_remembered_between_two_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLLM3REC_THREADS", "3")
    assert environment().threads == 3
    monkeypatch.setenv("MLLM3REC_THREADS", "")
    assert environment().threads is None, "empty is not set"
    monkeypatch.setenv("MLLM3REC_PRICES", "~/prices.toml")
    assert environment().prices == Path.home() / "prices.toml"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("threads", "abc", "valid integer"),
        ("threads", "0", "greater than or equal to 1"),
        ("threads", "2.5", "valid integer"),
        ("cache", "~no-such-user/cache", "home directory"),
    ],
)
def test_a_value_that_cannot_be_used_names_its_variable(
    name: str, value: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable(name), value)
    with pytest.raises(InputError, match=rf"^MLLM3REC_{name.upper()} is '{re.escape(value)}': .*{said}"):
        environment()


def test_the_cache_folder_prefers_our_variable_then_xdg_then_the_platform_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("MLLM3REC_CACHE", raising=False)
    if sys.platform == "linux":
        assert cache_dir() == tmp_path / ".cache" / "mllm3rec"
    for base, folder in (
        (str(tmp_path / "xdg"), tmp_path / "xdg"),
        ("~/xdg", tmp_path / "xdg"),
        ("relative", Path("relative")),
    ):
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        assert cache_dir() == folder / "mllm3rec"
    monkeypatch.setenv("MLLM3REC_CACHE", "~/own")
    assert cache_dir() == tmp_path / "own"
    assert not list(tmp_path.iterdir()), "looking makes nothing"


def test_the_engine_reads_its_threads_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("xllamacpp")
    engine = LocalEngine()
    monkeypatch.setenv("MLLM3REC_THREADS", "many")
    with pytest.raises(InputError, match="MLLM3REC_THREADS"):
        engine._start(Path("absent.gguf"))


def test_every_variable_of_this_project_is_declared_here_and_documented() -> None:
    packages = ("programs", "evaluate", "optimize", "mllm3rec")
    code = [path for package in packages for path in (ROOT / package).rglob("*.py")]
    used = {name for path in code for name in re.findall(r"MLLM3REC_[A-Z]+", path.read_text("utf-8"))}
    assert used <= {variable(name) for name in Environment.model_fields} | {KEY_PREFIX.rstrip("_")}
    documented = (ROOT / "docs" / "models.md").read_text("utf-8")
    for name in Environment.model_fields:
        assert f"`{variable(name)}`" in documented
        assert re.search(rf"^ +{name}: ", Environment.__doc__ or "", re.MULTILINE)
    readers = [path.name for path in code if re.search(r"environ(\.get\(|\[).*MLLM3REC", path.read_text("utf-8"))]
    assert readers == [], "only environment.py reads them"


def test_what_has_nothing_to_do_with_models_does_not_import_dspy() -> None:
    modules = [
        f"{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}"
        for folder in ("programs/runtime", "evaluate/stats")
        for path in sorted((ROOT / folder).glob("[a-z]*.py"))
    ]
    program = (
        "import importlib, sys\n"
        f"for name in {['signatures.rows', 'signatures.types', 'signatures.schema', *modules]}:\n"
        "    importlib.import_module(name)\n"
        "    assert 'dspy' not in sys.modules, name\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
