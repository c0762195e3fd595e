"""Files of ours that grow line by line: opened without following a symbolic link, and mended after a kill."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from programs.runtime.errors import InputError

_BLOCK = 1 << 16


def open_to_append(path: Path) -> int:
    """A descriptor to read a file and to append to it; the file is made, readable by its owner only, if it is missing.

    A folder that a stranger made may hold a link in place of the file. What it points to is left as it is.

    Raises:
        InputError: if the path is a symbolic link, or no regular file.
        OSError: if it cannot be opened.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError:
        if path.is_symlink():
            raise InputError(
                f"{path}: is a symbolic link, and nothing is written through one; remove it, or choose another folder"
            ) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise InputError(f"{path}: is not a regular file; remove it, or choose another folder")
    return descriptor


def cut_off_torn_line(descriptor: int) -> None:
    """Cut off a last line without its end, which a kill in the middle of a write leaves; the next line would join it.

    Args:
        descriptor: Of `open_to_append`.
    """
    size = end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - _BLOCK)
        newline = os.pread(descriptor, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        os.ftruncate(descriptor, end)
