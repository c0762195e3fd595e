"""Finds the directory of a dataset by its name, in ./data and the folder that MLLM3REC_DATA names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from programs.runtime.environment import environment, variable

DATA_VARIABLE = variable("data")

SEARCHED = f"in ./data or ${DATA_VARIABLE}"
"""Where names are looked for, for messages."""


def find_source(source: str) -> str | None:
    """The directory or file of a dataset, or `demo`; None if nothing is found.

    Args:
        source: A directory, a file, `demo`, or a name to look for.
    """
    if source == "demo" or Path(source).exists():
        return source
    for folder in _data_folders():
        # Directly, or one level down, where the releases of a collection are kept.
        for directory in (folder / source, *sorted(folder.glob(f"*/{source}"))):
            if directory.is_dir():
                return str(directory)
    return None


def _data_folders() -> Iterator[Path]:
    yield Path("data")
    if (folder := environment().data) is not None:
        yield folder
