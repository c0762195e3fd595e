"""Files of strangers: read without following symbolic links, within a size limit, and parsed without tracebacks."""

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
            raise InputError(f"{path}: is no regular file")
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise InputError(f"{path}: is larger than {max_bytes >> 20} MiB, which no file of its kind is")
    return content


def parse_untrusted_json(content: bytes, where: object, remedy: str) -> Any:
    """JSON of a stranger; numbers of thousands of digits and endless nesting are refused like any other nonsense.

    Raises:
        InputError: naming `where` and the remedy, if it is not JSON.
    """
    try:
        value = json.loads(content)
        # Half a character, written as an escape, could be neither hashed, sent nor stored.
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not whole JSON ({str(error)[:120]}); {remedy}") from None
