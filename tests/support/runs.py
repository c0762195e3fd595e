"""Runs of lists of twelve items."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evaluate.runs.journal import RunManifest, read_journal
from signatures.rows import Case, Ranking
from tests.support import cases

SIZE = 12
ITEMS = tuple(f"i{n:02}" for n in range(SIZE))
MANIFEST = RunManifest(cases_sha256="0" * 64, ranker="scripted")


def case(user: str, target: str = "i03") -> Case:
    """A user without a history, to whom all items are shown."""
    return cases.case([], ITEMS, user, target)


def rows_in(directory: Path) -> dict[str, Ranking]:
    """The rows of a run."""
    return read_journal(directory)[1]


def judgements(rows: Mapping[str, Ranking]) -> dict[str, dict[str, Any]]:
    """All that must be the same however often a run was interrupted: everything but what it took."""
    return {user: row.model_dump(exclude={"usage"}) for user, row in sorted(rows.items())}
