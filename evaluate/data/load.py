"""Dataset loading: recognizes the format of a directory or file by the names of the files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from evaluate.data.dataset import Dataset
from evaluate.data.demo.store import demo_dataset
from evaluate.data.loaders.amazon import AMAZON_FILES, find_amazon, load_amazon
from evaluate.data.loaders.movielens import MOVIELENS_FILES, find_movielens, load_movielens
from evaluate.data.loaders.plain import PLAIN_FILES, find_interactions, find_plain, load_plain
from evaluate.data.loaders.published import PUBLISHED_FILES, find_published, load_published
from evaluate.data.loaders.recbole import RECBOLE_FILES, find_recbole, load_recbole, recbole_files_of
from evaluate.data.loaders.single import ATOMIC, SINGLE_FILES, has_item_texts, is_single, load_single
from evaluate.data.records.column_names import check_our_columns
from programs.runtime.errors import InputError, listed

SHOWN_NAMES = 8

Columns = Mapping[str, str]


@dataclass(frozen=True)
class DataForm:
    """A form in which datasets come.

    Attributes:
        files: Its files, for people.
        find: Finds them in a directory; None if they are not there. In a tuple of their paths, each stands for the
            directory.
        load: Reads what `find` found, with the names of columns that were given.
        own: Whether the owner of the data names the columns, so that names of columns may be given.
    """

    files: str
    find: Callable[[Path], Any]
    load: Callable[[Any, Columns], Dataset]
    own: bool = False


FORMS = (
    DataForm(PLAIN_FILES, find_plain, load_plain, own=True),
    DataForm(MOVIELENS_FILES, find_movielens, lambda files, _: load_movielens(files)),
    DataForm(AMAZON_FILES, find_amazon, lambda files, _: load_amazon(files)),
    DataForm(PUBLISHED_FILES, find_published, lambda files, _: load_published(files)),
    DataForm(RECBOLE_FILES, find_recbole, load_recbole, own=True),
)


def load_dataset(source: str | Path, columns: Columns | None = None) -> Dataset:
    """Load a dataset.

    Args:
        source: A directory with the files of a known format (docs/data.md), one of these files, a single file of
            interactions, or the name `demo`, the built-in demo store.
        columns: Names of your columns by ours, for columns that are not recognized: `{"user_id": "who"}`.

    Returns:
        The dataset; its `notes` list what the loader decided or dropped.

    Raises:
        InputError: If there is no such directory or file, its files have no known format, one of them is invalid, or
            no file has one of the columns; names file, line and field or id.
    """
    columns = dict(columns or {})
    check_our_columns(columns)
    if str(source) == "demo":
        if columns:
            raise InputError("columns: the demo store has none to name; give them with your own data")
        return demo_dataset()
    path = Path(source)
    if path.is_file():
        dataset = _load_file(path, columns)
    elif path.is_dir():
        dataset = _load_directory(path, columns)
    else:
        raise InputError(f"{path}: no such directory or file; give {_expected()}")
    return replace(dataset, source=str(path.resolve()), columns=columns)


def _load_file(path: Path, columns: Columns) -> Dataset:
    """The dataset that a file belongs to; of a table without a dataset around it, what is in the table."""
    if path.suffix == ATOMIC and (atomic := recbole_files_of(path)) is not None:
        return load_recbole(atomic, columns)
    for form in FORMS:
        try:
            files = form.find(path.parent)
        except InputError:  # another dataset in the same folder is not asked for
            continue
        if isinstance(files, tuple) and path in files:
            return _load(path, form, files, columns)
    if not is_single(path):
        raise InputError(
            f"{path}: not a table (.csv, .tsv, .jsonl, .parquet, the text ones also with .gz, or .inter); "
            f"give one, or the directory of a dataset, such as {path.parent}"
        )
    return load_single(path, columns)


def _load_directory(directory: Path, columns: Columns) -> Dataset:
    for form in FORMS:
        if (files := form.find(directory)) is not None:
            return _load(directory, form, files, columns)
    interactions = find_interactions(directory) or next(iter(sorted(directory.glob(f"*{ATOMIC}"))), None)
    if interactions is not None and has_item_texts(interactions, columns):
        return load_single(interactions, columns)
    names = sorted(path.name for path in directory.iterdir())
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    content = listed(names[:SHOWN_NAMES]) + more if names else "nothing"
    found = f"{directory}: no dataset in a known format (found: {content})"
    if interactions is not None:
        items = "items.csv (.parquet, .jsonl)" if interactions.suffix != ATOMIC else f"{interactions.stem}.item"
        missing = f"{interactions.name} is there, {items} with the items and their texts is missing"
        alone = f"add it, or give the file itself, {interactions}, to use the ids of items as their texts"
        raise InputError(f"{found}: {missing}; {alone}; expected {_expected()}")
    inside = [child for child in sorted(directory.iterdir()) if child.is_dir() and _is_dataset(child)]
    if inside:
        raise InputError(f"{found}; did you mean {listed(inside)}?")
    tables = [path for path in sorted(directory.iterdir()) if path.is_file() and is_single(path)]
    if len(tables) == 1:
        raise InputError(f"{found}; if this is a table of interactions, give the file itself, {tables[0]}")
    raise InputError(f"{found}; expected {_expected()}")


def _load(source: Path, form: DataForm, files: Any, columns: Columns) -> Dataset:
    if columns and not form.own:
        raise InputError(
            f"{source}: is a published dataset whose columns are known, so none can be named; leave --columns out"
        )
    return form.load(files, columns)


def _is_dataset(directory: Path) -> bool:
    try:
        return any(form.find(directory) for form in FORMS)
    except (InputError, OSError):
        return False


def _expected() -> str:
    formats = "".join(f"\n  - {files}" for files in (*(form.files for form in FORMS), SINGLE_FILES))
    return f"a directory in one of these formats, or the name 'demo':{formats}"
