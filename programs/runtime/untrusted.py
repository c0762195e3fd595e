"""Readers of untrusted files and parsers of untrusted texts: limits, and errors without tracebacks."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from programs.runtime.errors import InputError, abridged

MAX_BYTES = 16 << 20


def open_untrusted(path: Path) -> BinaryIO:
    """A regular file, open to be read.

    Raises:
        InputError: if it is missing, a symbolic link or no regular file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        problem = "is a symbolic link" if path.is_symlink() else error.strerror
        raise InputError(f"{path}: {problem}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: is not a regular file")
    return os.fdopen(descriptor, "rb")


def read_untrusted(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        InputError: if it is missing, a symbolic link or no regular file, or larger than `max_bytes`.
    """
    with open_untrusted(path) as file:
        return _bounded(file, path, max_bytes)


def read_regular(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file, also through a symbolic link.

    Raises:
        InputError: if it is no regular file, or larger than `max_bytes`.
        OSError: if it cannot be read.
    """
    with regular(path).open("rb") as file:
        return _bounded(file, path, max_bytes)


def _bounded(file: BinaryIO, path: Path, max_bytes: int) -> bytes:
    content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise InputError(f"{path}: is larger than {max_bytes >> 20} MiB, the limit for its kind of file")
    return content


def regular(path: Path) -> Path:
    """The path itself, which is to be opened: a file, a folder, or nothing.

    Raises:
        InputError: if it is a pipe, a device or a socket, whose reader would wait for ever or read without an end.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return path  # whoever opens it says what is wrong
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise InputError(f"{path}: is not a regular file")
    return path


def parse_untrusted(parse: Callable[[str], Any], content: bytes, where: object, form: str, remedy: str) -> Any:
    """The data in an untrusted text of a standard format.

    Args:
        parse: Parser of the format.
        form: Name of the format, for messages.

    Raises:
        InputError: naming `where` and the remedy: if it is not UTF-8 (with or without a byte order mark), not in the
            format, nested too deep, holds an integer of thousands of digits, or half a character (a lone surrogate).
    """
    try:
        value = parse(content.decode("utf-8-sig"))
        whole = _is_whole(value)
    # Parsers raise IndexError, KeyError, MemoryError, ... too, for texts that their authors did not think of.
    except Exception as error:
        raise InputError(f"{where}: not a readable {form}: {_reason(error)}; {remedy}") from None
    if not whole:
        raise InputError(f"{where}: not a readable {form}: it holds half a character (a lone surrogate); {remedy}")
    return value


def parse_untrusted_json(content: bytes, where: object, remedy: str) -> Any:
    """Untrusted JSON, with finite numbers only; see `parse_untrusted`.

    Raises:
        InputError: naming `where` and the remedy, if it is not JSON.
    """
    return parse_untrusted(_finite_json, content, where, "JSON text", remedy)


def _finite_json(text: str) -> Any:
    return json.loads(text, parse_constant=_refuse_constant)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _is_whole(value: object) -> bool:
    """Whether every text in parsed data can be encoded; half a character could not be hashed, sent or stored."""
    waiting = [value]
    while waiting:
        found = waiting.pop()
        if isinstance(found, str):
            # Faster than looking for surrogates, and most texts are ASCII.
            if not found.isascii() and found.encode("utf-8", "replace").decode() != found:
                return False
        elif isinstance(found, Mapping):
            waiting += [*found.keys(), *found.values()]
        elif isinstance(found, list | tuple | set):
            waiting += found
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is not UTF-8 text"
    if isinstance(error, RecursionError | MemoryError):
        return "it is nested too deep"
    if "integer string conversion" in str(error):
        return "it holds a number of thousands of digits"
    return abridged(" ".join(str(error).split())) or type(error).__name__
