"""Contents of the cache folder: sizes, stored answers by model and role, and their removal."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from programs.runtime.errors import InputError, quoted

ANSWERS = "answers"
KINDS = {
    ANSWERS: "calls.sqlite",
    "traits": "traits.sqlite",
    "embeddings": "embeddings.sqlite",
    "neighbours": "neighbours",
    "fits": "fits",
    "weights": "weights",
    "batches": "batches",
}
"""What is kept, by its name in commands: file or folder in the cache folder."""

CLEARABLE = (ANSWERS, "traits", "embeddings", "neighbours", "fits")
"""What can be made again without being fetched; batches are paid work that may still be under way."""

_TABLES = {ANSWERS: "answers", "traits": "phrases", "embeddings": "vectors"}
_MODEL = "coalesce(json_extract(answer, '$._model'), json_extract(answer, '$.response_model'), "
_MODEL += "json_extract(answer, '$.model'), '')"
_ROLE = "coalesce(json_extract(answer, '$._role'), '')"


@dataclass(frozen=True)
class CacheSize:
    """One kind of content: how many entries (files of a folder), and bytes on disk."""

    kind: str
    path: Path
    entries: int
    bytes: int


@dataclass(frozen=True)
class AnswerCount:
    """Stored answers of one model and role; an empty role where an older version stored them."""

    model: str
    role: str
    answers: int
    bytes: int


def cache_sizes(folder: Path) -> list[CacheSize]:
    """The kinds of content that are there."""
    found = []
    for kind, name in KINDS.items():
        path = folder / name
        if path.is_dir():
            files = [one for one in path.rglob("*") if one.is_file()]
            found.append(CacheSize(kind, path, len(files), sum(one.stat().st_size for one in files)))
        elif path.exists():
            with _opened(path) as database:
                (entries,) = database.execute(f"SELECT COUNT(*) FROM {_TABLES[kind]}").fetchone()  # noqa: S608
            beside = [path, *(path.with_name(path.name + ending) for ending in ("-wal", "-shm"))]
            found.append(CacheSize(kind, path, entries, sum(one.stat().st_size for one in beside if one.exists())))
    return found


def answer_counts(folder: Path) -> list[AnswerCount]:
    """Stored answers by model and role, the largest first."""
    path = folder / KINDS[ANSWERS]
    if not path.exists():
        return []
    query = f"SELECT {_MODEL}, {_ROLE}, COUNT(*), SUM(LENGTH(answer)) FROM answers GROUP BY 1, 2 ORDER BY 4 DESC"  # noqa: S608
    with _opened(path) as database:
        return [AnswerCount(*row) for row in database.execute(query)]


def forget_answers(folder: Path, model: str) -> int:
    """Remove the stored answers of one model, and return how many there were.

    Raises:
        InputError: if there are none, naming the models there are.
    """
    known = {one.model for one in answer_counts(folder)}
    if model not in known:
        raise InputError(
            f"no stored answers of {quoted(model)}; there are some of {', '.join(sorted(known)) or 'none'}"
        )
    with _opened(folder / KINDS[ANSWERS]) as database:
        removed = database.execute(f"DELETE FROM answers WHERE {_MODEL} = ?", (model,)).rowcount  # noqa: S608
        database.execute("VACUUM")
    return removed


def clear_cache(folder: Path, kind: str) -> None:
    """Remove all content of one kind of `CLEARABLE`.

    Raises:
        InputError: if it is another kind, or a file is in use.
    """
    if kind not in CLEARABLE:
        raise InputError(f"{quoted(kind)} cannot be cleared here; choose one of {', '.join(CLEARABLE)}")
    path = folder / KINDS[kind]
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        # Rows, not the file: another process may have it open.
        with _opened(path) as database:
            database.execute(f"DELETE FROM {_TABLES[kind]}")  # noqa: S608
            database.execute("VACUUM")


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(path, timeout=10.0, isolation_level=None)) as database:
            yield database
    except sqlite3.Error as error:
        raise InputError(
            f"{path}: cannot be read or changed ({error}); end what uses it, or delete the file"
        ) from error
