"""The name of a model file covers its whole content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from programs.lm.llama_cpp import gguf_identity
from programs.runtime.errors import InputError


def test_a_byte_in_the_middle_makes_another_model(tmp_path: Path) -> None:
    content = bytearray(b"GGUF" + bytes(4 << 20))
    path = tmp_path / "Model.gguf"
    path.write_bytes(content)
    before = gguf_identity(path)
    content[2 << 20] = 1
    path.write_bytes(content)
    os.utime(path, (1, 1))
    assert before.startswith("model-")
    assert gguf_identity(path) != before


def test_the_same_content_elsewhere_has_the_same_name(tmp_path: Path) -> None:
    names = set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / "m.gguf"
        path.write_bytes(b"GGUF" + bytes(2000))
        names.add(gguf_identity(path))
    assert len(names) == 1


def test_another_file_is_no_model(tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(b"PK" + bytes(2000))
    with pytest.raises(InputError, match="not a GGUF"):
        gguf_identity(path)
