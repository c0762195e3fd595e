"""Lines of text files, whole and damaged."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from evaluate.data.records.reading import read_lines
from programs.runtime.errors import InputError
from tests.support.files import write


def test_lines_of_plain_and_compressed_files_agree(tmp_path: Path) -> None:
    text = "\ufefffirst\r\nzweite Zeile: ü\n\nlast"
    expected = [(1, "first"), (2, "zweite Zeile: ü"), (3, ""), (4, "last")]
    assert list(read_lines(write(tmp_path / "a.txt", text))) == expected
    assert list(read_lines(write(tmp_path / "a.txt.gz", text))) == expected


def truncated(path: Path) -> None:
    path.write_bytes(gzip.compress("\n".join(map(str, range(9999))).encode())[:-20])


def damaged(path: Path) -> None:
    data = bytearray(gzip.compress(bytes(range(32, 127)) * 50))
    data[15] ^= 0xFF
    path.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("name", "spoil", "parts"),
    [
        ("a.gz", lambda path: path.write_bytes(b"plain text"), ["a.gz", "not a gzip file"]),
        ("a.gz", truncated, ["a.gz", "truncated or damaged after line", "download it again"]),
        ("a.gz", damaged, ["a.gz", "damaged"]),
        ("a.gz", lambda path: path.write_bytes(gzip.compress(b"")), ["a.gz", "empty"]),
        ("a.txt", lambda path: path.write_bytes(b""), ["a.txt", "empty"]),
        ("a.txt", lambda path: path.write_bytes(b"\n  \n"), ["a.txt", "empty"]),
        ("a.txt", lambda path: path.write_bytes(b"good\nb\xff"), ["a.txt, line 2: byte 2 is not utf-8"]),
        ("a.txt", lambda path: path.mkdir(), ["a.txt: cannot be read"]),
        ("a.txt", lambda path: None, ["a.txt: cannot be read: No such file"]),
    ],
)
def test_unreadable_files(tmp_path: Path, name: str, spoil: Callable[[Path], object], parts: list[str]) -> None:
    spoil(tmp_path / name)
    with pytest.raises(InputError) as caught:
        list(read_lines(tmp_path / name))
    assert all(part in str(caught.value) for part in parts), caught.value
