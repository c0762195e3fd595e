"""The process that works in a folder: which it is, and Ctrl-C for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from programs.runtime.errors import InputError
from programs.runtime.lock import LOCK
from programs.runtime.untrusted import open_untrusted

_LONGEST_ID = 32
"""Bytes."""


def working_process(folder: Path) -> int | None:
    """Id of the process that holds the lock of a folder; None if there is none.

    The lock names its process. Ids are used again by the system, so the process must also have the lock file open;
    where the system does not tell (only Linux does), the folder counts as idle.
    """
    lock = folder / LOCK
    try:
        with open_untrusted(lock) as file:  # no pipe, whose reader waits for ever, and no link
            process = int(file.read(_LONGEST_ID))
            wanted = os.fstat(file.fileno())
        for handle in Path(f"/proc/{process}/fd").iterdir():
            try:
                found = handle.stat()
            except OSError:
                continue  # closed in the meantime, or a pipe of another user
            if (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino):
                return process
    except (OSError, ValueError):
        return None
    return None


def interrupt(folder: Path) -> int:
    """Send Ctrl-C (SIGINT) to the process that works in a folder: it ends at its next step, and can be resumed.

    Returns:
        Its id.

    Raises:
        InputError: if no process can be shown to work there.
    """
    process = working_process(folder)
    if process is None:
        raise InputError(
            f"{folder}: no process works here any more, or the system does not say which; press Ctrl-C in its terminal"
        )
    # The handle keeps the id from being used again between the second look and the signal.
    handle = os.pidfd_open(process)
    try:
        if working_process(folder) != process:
            raise InputError(f"{folder}: the process has just ended")
        signal.pidfd_send_signal(handle, signal.SIGINT)
    finally:
        os.close(handle)
    return process
