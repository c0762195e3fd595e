"""Finds the directory of a dataset by its name, in ./data and the folder that MLLM3REC_DATA names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from programs.runtime.environment import environment, variable
from programs.runtime.errors import InputError
from programs.runtime.events import Note, OnEvent, ignore

DATA_VARIABLE = variable("data")

_SEARCHED = f"in ./data or ${DATA_VARIABLE}"


def find_source(source: str, fallback: str | None, given: str | None, on_event: OnEvent = ignore) -> str:
    """The directory of a dataset, or `demo`.

    Args:
        source: A directory, `demo`, or a name to look for.
        fallback: Used, with a note, if nothing is found.
        given: Directory from the user; returned as it is.

    Raises:
        InputError: if it is not found, naming the folders that were searched.
    """
    if given is not None:
        return given
    if source == "demo" or Path(source).is_dir():
        return source
    for folder in _data_folders():
        # Directly, or one level down, where the releases of a collection are kept.
        for directory in (folder / source, *sorted(folder.glob(f"*/{source}"))):
            if directory.is_dir():
                return str(directory)
    if fallback is not None:
        on_event(Note(f"no dataset {source!r} {_SEARCHED}: {fallback} is used instead"))
        return fallback
    raise InputError(
        f"no dataset {source!r}: no such directory, and none of that name {_SEARCHED}; give its directory with "
        "--data NAME=DIRECTORY"
    )


def _data_folders() -> Iterator[Path]:
    yield Path("data")
    if (folder := environment().data) is not None:
        yield folder
