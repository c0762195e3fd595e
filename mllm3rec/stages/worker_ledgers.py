"""Ledgers of workers on several machines: a file for each in the job's folder, merged into the job's one ledger.

A worker's lines are in its file before a call is sent and once it has ended. A merge adds the lines that the job's
ledger does not have yet, so it may be repeated, and a kill at any moment loses no line.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

from programs.runtime.appending import cut_off_torn_line, open_to_append
from programs.runtime.untrusted import open_untrusted

_FOLDER = "ledgers"


def new_ledger_path(folder: Path) -> Path:
    """A file in the job's folder for one more worker."""
    return folder / _FOLDER / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"


def worker_ledgers(folder: Path) -> list[Path]:
    """The files of all workers so far, those of earlier runs included."""
    return sorted((folder / _FOLDER).glob("*.jsonl"))


def merge_ledgers(folder: Path, ledger: Path) -> None:
    """Add the lines of the workers to the job's ledger, each once; a torn last line of the ledger is cut off first.

    Workers that share the job's ledger append to it at once, so it has to end with a whole line before they begin.

    Raises:
        InputError: if a ledger is a symbolic link or no regular file.
    """
    files = worker_ledgers(folder)
    if not files and not (ledger.exists() or ledger.is_symlink()):
        return
    with os.fdopen(open_to_append(ledger), "a+b") as merged:
        cut_off_torn_line(merged.fileno())
        if files:
            merged.seek(0)
            known = set(merged)
            for path in files:
                merged.writelines(line for line in _lines(path) if line not in known)


def _lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file."""
    with open_untrusted(path) as file:
        yield from (line for line in file if line.endswith(b"\n"))
