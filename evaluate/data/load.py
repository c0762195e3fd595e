"""Dataset loading: recognizes the format of a directory by the names of its files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from evaluate.data.dataset import Dataset
from evaluate.data.demo.store import demo_dataset
from evaluate.data.loaders.amazon import AMAZON_FILES, find_amazon, load_amazon
from evaluate.data.loaders.movielens import MOVIELENS_FILES, find_movielens, load_movielens
from evaluate.data.loaders.plain import PLAIN_FILES, find_interactions, find_plain, load_plain
from evaluate.data.loaders.recbole import RECBOLE_FILES, find_recbole, load_recbole
from programs.runtime.errors import InputError, listed

SHOWN_NAMES = 8


def load_dataset(source: str | Path) -> Dataset:
    """Load a dataset.

    Args:
        source: A directory in the plain form, with the Amazon files of one category (2014, 2018 or 2023), with
            MovieLens 100K or 1M, or with RecBole's atomic files; or the name `demo`, the built-in demo store.

    Returns:
        The dataset; its `notes` list what the loader decided or dropped.

    Raises:
        InputError: If there is no such directory, its files have no known format, or one of them is invalid; names
            file, line and field or id.
    """
    if str(source) == "demo":
        return demo_dataset()
    directory = Path(source)
    if directory.is_file():
        raise InputError(f"{directory}: not a directory; give the directory it is in, {directory.parent}")
    if not directory.is_dir():
        raise InputError(f"{directory}: no such directory; give {_expected()}")
    return replace(_load_directory(directory), source=str(directory.resolve()))


def _load_directory(directory: Path) -> Dataset:
    if (plain_files := find_plain(directory)) is not None:
        return load_plain(plain_files)
    if (movielens_files := find_movielens(directory)) is not None:
        return load_movielens(movielens_files)
    if (amazon_files := find_amazon(directory)) is not None:
        return load_amazon(amazon_files)
    if (recbole_files := find_recbole(directory)) is not None:
        return load_recbole(recbole_files)
    names = sorted(path.name for path in directory.iterdir())
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    content = listed(names[:SHOWN_NAMES]) + more if names else "nothing"
    found = f"{directory}: no dataset in a known format (found: {content})"
    if (interactions := find_interactions(directory)) is not None or (interactions := _inter(directory)) is not None:
        items = "items.csv (.parquet, .jsonl)" if interactions.suffix != ".inter" else f"{interactions.stem}.item"
        missing = f"{interactions.name} is there, {items} with the items and their texts is missing"
        raise InputError(f"{found}: {missing}; add it, or give data frames in Python; expected {_expected()}")
    inside = [child for child in sorted(directory.iterdir()) if child.is_dir() and _is_dataset(child)]
    if inside:
        raise InputError(f"{found}; did you mean {listed(inside)}?")
    raise InputError(f"{found}; expected {_expected()}")


def _inter(directory: Path) -> Path | None:
    return next(iter(sorted(directory.glob("*.inter"))), None)


def _is_dataset(directory: Path) -> bool:
    try:
        return any(find(directory) for find in (find_plain, find_movielens, find_amazon, find_recbole))
    except (InputError, OSError):
        return False


def _expected() -> str:
    formats = "".join(f"\n  - {files}" for files in (PLAIN_FILES, AMAZON_FILES, MOVIELENS_FILES, RECBOLE_FILES))
    return f"a directory in one of these formats, or the name 'demo':{formats}"
