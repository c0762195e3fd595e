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

from programs.lm.ledger import Ledger

_FOLDER = "ledgers"


def new_ledger_path(folder: Path) -> Path:
    """A file in the job's folder for one more worker."""
    return folder / _FOLDER / f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"


def worker_ledgers(folder: Path) -> list[Path]:
    """The files of all workers so far, those of earlier runs included."""
    return sorted((folder / _FOLDER).glob("*.jsonl"))


def merge_ledgers(folder: Path, ledger: Path) -> None:
    """Add the lines of the workers to the job's ledger, each once."""
    files = worker_ledgers(folder)
    if not files:
        return
    Ledger(ledger).close()  # cuts off a line that a kill has left without its end
    known = set(_lines(ledger)) if ledger.exists() else set()
    private = os.open(ledger, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(private, "ab") as merged:
        for path in files:
            merged.writelines(line for line in _lines(path) if line not in known)


def _lines(path: Path) -> Iterator[bytes]:
    """The whole lines of a file."""
    with path.open("rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))
