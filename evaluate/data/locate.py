"""Resolves the name of a dataset to a directory: ./data and the folder that MLLM3REC_DATA names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from programs.runtime.environment import environment, variable
from programs.runtime.errors import InputError
from programs.runtime.events import Note, OnEvent, ignore

DATA_VARIABLE = variable("data")

_NOWHERE = f"in ./data or ${DATA_VARIABLE}"


def find_source(source: str, fallback: str | None, given: str | None, on_event: OnEvent = ignore) -> str:
    """The directory of a dataset, or `demo`.

    Args:
        source: A directory, `demo`, or a name to look for.
        fallback: Taken, and said so, where nothing is found.
        given: Where the user says it lies; then nothing else is looked at.

    Raises:
        InputError: if it is nowhere, saying where was looked.
    """
    if given is not None:
        return given
    if source == "demo" or Path(source).is_dir():
        return source
    for folder in _data_folders():
        # As it is, or one level down, where people keep the releases of a collection.
        for found in (folder / source, *sorted(folder.glob(f"*/{source}"))):
            if found.is_dir():
                return str(found)
    if fallback is not None:
        on_event(Note(f"no dataset {source!r} {_NOWHERE}: {fallback} is taken instead"))
        return fallback
    raise InputError(
        f"no dataset {source!r}: no such directory, and none of that name {_NOWHERE}; say where it lies with "
        "--data NAME=DIRECTORY"
    )


def _data_folders() -> Iterator[Path]:
    yield Path("data")
    if (named := environment().data) is not None:
        yield named
