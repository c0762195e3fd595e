"""New answers instead of stored ones: a salt in the keys of stored answers and traits, kept with the results.

A command that is repeated finds the salt of its first time, so that it pays nothing twice; answers of other runs stay.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from programs.runtime.atomic import write_atomically
from programs.runtime.environment import using
from programs.runtime.errors import InputError
from programs.runtime.untrusted import read_untrusted

SALT_FILE = "fresh.txt"


@contextmanager
def fresh_answers(wanted: bool, folder: Path | None = None) -> Iterator[None]:
    """Inside the block, models are asked anew, once for each folder of results.

    Args:
        wanted: Whether to begin so; a folder that was begun so goes on so in any case.
        folder: Of the results; None to ask anew each time.

    Raises:
        InputError: if the folder was begun with stored answers, or its salt cannot be read.
    """
    salt = _salt(wanted, folder)
    if salt is None:
        yield
        return
    with using("fresh", salt):
        yield


def _salt(wanted: bool, folder: Path | None) -> str | None:
    path = None if folder is None else folder / SALT_FILE
    if path is not None and path.exists():
        stored = read_untrusted(path).strip()
        if not stored.isalnum():
            raise InputError(f"{path}: not a file of `--fresh`; remove it, or choose another folder")
        return stored.decode("ascii")
    if not wanted:
        return None
    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: was begun with stored answers; give another folder for new ones (--fresh)")
    salt = secrets.token_hex(8)
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, f"{salt}\n".encode())
    return salt
