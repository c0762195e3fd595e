"""Datasets: a catalogue and who bought what, from the forms people really have."""

from __future__ import annotations

from pathlib import Path

from evaluate.datasets import amazon, movielens, plain
from evaluate.datasets.dataset import Dataset
from programs.errors import InputError

__all__ = ["Dataset", "load_dataset"]

SHOWN_NAMES = 8


def load_dataset(source: str | Path) -> Dataset:
    """Reads a dataset; its format is recognized by the names of the files.

    Args:
        source: A directory in the plain form, with the Amazon files of one category (2014, 2018 or 2023), or
            with MovieLens 100K or 1M; or the name `demo`, the built-in demo store.

    Returns:
        The dataset; what was decided or dropped on the way is in its `notes`.

    Raises:
        InputError: If there is no such directory, its files are not of a known format, or something in
            them cannot be used; names file, line and field or id.
    """
    if str(source) == "demo":
        from evaluate.demo.store import demo_dataset

        return demo_dataset()
    directory = Path(source)
    if not directory.is_dir():
        problem = "not a directory" if directory.exists() else "no such directory"
        raise InputError(f"{directory}: {problem}; give {_looked_for()}")
    if (plain_files := plain.find(directory)) is not None:
        return plain.load(plain_files)
    if (movielens_files := movielens.find(directory)) is not None:
        return movielens.load(movielens_files)
    if (amazon_files := amazon.find(directory)) is not None:
        return amazon.load(amazon_files)
    names = sorted(path.name for path in directory.iterdir())
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    held = ", ".join(names[:SHOWN_NAMES]) + more if names else "nothing"
    raise InputError(f"{directory}: holds no dataset in a known format, but {held}; looked for {_looked_for()}")


def _looked_for() -> str:
    formats = "".join(f"\n  - {module.LOOKED_FOR}" for module in (plain, amazon, movielens))
    return f"a directory in one of these formats, or the name 'demo':{formats}"
