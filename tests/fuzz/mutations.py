"""Seeded mutations of texts: bytes, lines, values and whole structures, with what parsers do not expect."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from typing import Any

VALUES: tuple[bytes, ...] = (
    b"null",
    b"true",
    b"0",
    b"-1",
    b"1e999",
    b"-1e-999",
    b"NaN",
    b"-Infinity",
    b"nan",
    b"inf",
    b"9" * 30,
    b"9" * 5000,
    b"0x1f",
    b"1_000",
    "²٣".encode(),
    b'""',
    b'"' + b"x" * 5000 + b'"',
    b'"\\ud800"',
    b'"\\u0000"',
    b"[]",
    b"{}",
    b"[" * 2000,
    b"[" * 500 + b"]" * 500,
    b'{"a":' * 1500,
    b'{"a":' * 300 + b"1" + b"}" * 300,
    b"&#" + b"9" * 5000 + b";",
    b"<script>" * 500,
    b"2026-13-45T99:99:99",
    b"9999-12-31T23:59:59+23:59",
    b"'it''s'",
    b"__import__('os')",
)
"""In place of a value, as they stand in a file."""

PIECES: tuple[bytes, ...] = (
    b"\x00",
    b"\xff",
    b"\xc3",
    b"\xef\xbb\xbf",
    b"\x1b[2J",
    "\u202e\u2028\u0085".encode(),
    b"\\",
    b'"',
    b"'",
    b",",
    b";",
    b"\t",
    b"::",
    b"|",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"{",
    b"}",
    b"[",
    b"]",
    b"=",
    b"#",
    b"- ",
    b": ",
    b"&a *a",
    b"!!int ''",
    b"<",
    b"a." * 3000,
)
"""Anywhere."""

JSON_VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1.5,
    1e308,
    float("nan"),
    float("-inf"),
    10**30,
    10**4000,
    "",
    " ",
    "x" * 5000,
    "\x00\x1b[2J\u202e",
    "\ud800",
    "../../x",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"__class__": "x"},
    [1] * 2000,
)
"""In place of a node of a JSON tree."""

_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|[A-Za-z_]{2,}')


def mutated(content: bytes, seed: str) -> bytes:
    """A text after one to three mutations; the same for the same seed."""
    draw = random.Random(seed)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        content = draw.choice(_MUTATIONS)(content, draw)
    return content


def _byte(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    return content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :]


def _piece(content: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(content) + 1)
    return content[:at] + draw.choice(PIECES) + content[at:]


def _cut(content: bytes, draw: random.Random) -> bytes:
    return content[: draw.randrange(len(content) + 1)]


def _without(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    return content[:start] + content[start + draw.choice((1, 2, 5, 20, 100)) :]


def _twice(content: bytes, draw: random.Random) -> bytes:
    start = draw.randrange(len(content) + 1)
    end = start + draw.choice((1, 5, 20, 100, 1000))
    return content[:end] + content[start:end] * draw.choice((1, 1, 50)) + content[end:]


def _value(content: bytes, draw: random.Random) -> bytes:
    found = list(_VALUE.finditer(content))
    if not found:
        return _piece(content, draw)
    chosen = draw.choice(found)
    return content[: chosen.start()] + draw.choice(VALUES) + content[chosen.end() :]


def _lines(content: bytes, draw: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    if len(lines) < 2:
        return _piece(content, draw)
    first, second = draw.randrange(len(lines)), draw.randrange(len(lines))
    action = draw.choice(("swap", "drop", "repeat", "join"))
    if action == "swap":
        lines[first], lines[second] = lines[second], lines[first]
    elif action == "drop":
        del lines[first]
    elif action == "repeat":
        lines.insert(second, lines[first])
    else:
        lines[first] = lines[first].rstrip(b"\r\n")
    return b"".join(lines)


def _encoding(content: bytes, draw: random.Random) -> bytes:
    text = content.decode("utf-8", "replace")
    return text.encode(draw.choice(("utf-16", "utf-8-sig", "utf-32", "latin-1", "cp1252")), "replace")


def _tree(content: bytes, draw: random.Random) -> bytes:
    """Another value, key or element somewhere in a whole JSON text, or in one of its lines."""
    lines = content.splitlines(keepends=True)
    at = draw.randrange(len(lines)) if lines else 0
    for start, part in ((None, content), (at, lines[at] if lines else b"")):
        try:
            tree = json.loads(part)
        except (ValueError, RecursionError):
            continue
        if not isinstance(tree, dict | list) or not tree:
            continue
        _change(tree, draw)
        written = _dumped(tree)
        if start is None:
            return written
        lines[start] = written + b"\n"
        return b"".join(lines)
    return _value(content, draw)


def _change(tree: Any, draw: random.Random) -> None:
    while True:
        key = draw.choice(list(tree)) if isinstance(tree, dict) else draw.randrange(len(tree))
        inner = tree[key]
        if isinstance(inner, dict | list) and inner and draw.random() < 0.7:
            tree = inner
            continue
        action = draw.choice(("replace", "replace", "replace", "remove", "rename", "repeat"))
        if action == "replace":
            tree[key] = draw.choice(JSON_VALUES)
        elif action == "remove":
            del tree[key]
        elif isinstance(tree, list):
            tree.insert(key, inner)
        elif action == "rename":
            tree[draw.choice(("", "x" * 3000, "__class__", "\ud800", "config"))] = tree.pop(key)
        else:
            tree[key] = [inner, inner]
        return


def _dumped(tree: Any) -> bytes:
    # 4,000 digits are as many as Python writes and reads.
    return json.dumps(tree).encode()


Mutation = Callable[[bytes, random.Random], bytes]
_MUTATIONS: tuple[Mutation, ...] = (
    _byte,
    _piece,
    _cut,
    _without,
    _twice,
    _value,
    _value,
    _lines,
    _encoding,
    _tree,
    _tree,
)
