"""Readers of untrusted files: no symbolic links, a size limit, and errors without tracebacks."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

from programs.runtime.errors import InputError

MAX_BYTES = 16 << 20


def read_untrusted(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """The content of a regular file.

    Raises:
        InputError: if it is missing, a symbolic link or no regular file, or larger than `max_bytes`.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        problem = "is a symbolic link" if path.is_symlink() else error.strerror
        raise InputError(f"{path}: {problem}") from None
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise InputError(f"{path}: is not a regular file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise InputError(f"{path}: is larger than {max_bytes >> 20} MiB, the limit for its kind of file")
    return content


def parse_untrusted_json(content: bytes, where: object, remedy: str) -> Any:
    """Untrusted JSON; numbers with thousands of digits and extreme nesting are refused, too.

    Raises:
        InputError: naming `where` and the remedy, if it is not JSON.
    """
    try:
        value = json.loads(content)
        # Half a character (a lone surrogate) could not be hashed, sent or stored.
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not whole JSON ({str(error)[:120]}); {remedy}") from None
