"""Accuracy by slice of users: history length, popularity of the held-out item, cold or warm item."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluate.report.ranker_runs import RankerRuns
from evaluate.report.record import ProtocolRecord
from evaluate.report.table import NONE, Table, TableCell, TableRow, count_cell, estimate_cell, table_row, word_cell
from evaluate.stats.intervals import Estimate, bootstrap_mean
from signatures.rows import Case

SLICE_METRICS = ("HR@5", "NDCG@5")

LENGTHS = {"1": (1, 1), "2": (2, 2), "3–4": (3, 4), "5–9": (5, 9), "10+": (10, None)}
"""Groups of history lengths, both ends included."""

DECILES = 10


@dataclass(frozen=True)
class Slice:
    """A subset of the users.

    Attributes:
        figures: Estimates by ranker and metric; without rankers that ranked none of the users.
    """

    name: str
    users: frozenset[str]
    figures: Mapping[str, Mapping[str, Estimate]]


@dataclass(frozen=True)
class Slicing:
    """A partition of the users.

    Attributes:
        name: Part of file names and of the page's ids.
        by: Property that divides the users, in words.
    """

    name: str
    by: str
    caption: str
    slices: tuple[Slice, ...]


def slicings(protocol: ProtocolRecord, groups: Sequence[RankerRuns]) -> list[Slicing]:
    """All ways to divide the users of a protocol; slices without users are left out."""
    # Histories and targets are the same in all draws; a draw of which fewer users are ranked has the first of them.
    cases = max(protocol.cases.values(), key=len).cases
    decile = Deciles(protocol.popularity)
    return [
        _sliced(
            Slicing(
                "history", "history length", "Users by the number of interactions in the history that rankers saw.", ()
            ),
            cases,
            groups,
            list(LENGTHS),
            lambda case: length_slice(len(case.history)),
        ),
        _sliced(
            Slicing(
                "popularity",
                "item popularity",
                "Users by the popularity of their held-out item. Items with users in the training data are ordered by "
                "their number of users and cut into ten equal parts; decile 10 is the most popular.",
                (),
            ),
            cases,
            groups,
            decile.names,
            lambda case: decile.of(case.target or ""),
        ),
        _sliced(
            Slicing(
                "cold",
                "cold or warm item",
                "A held-out item is cold if it has no user in the training data; only its text is known.",
                (),
            ),
            cases,
            groups,
            ["cold (no training user)", "warm"],
            lambda case: "warm" if protocol.popularity.get(case.target or "", 0) else "cold (no training user)",
        ),
    ]


def length_slice(length: int) -> str:
    """The slice of a history's length.

    >>> length_slice(4), length_slice(12)
    ('3–4', '10+')
    """
    return next(name for name, (_, last) in LENGTHS.items() if last is None or length <= last)


class Deciles:
    """Popularity deciles over the items that have users; equally popular items are in the same decile.

    >>> Deciles({"a": 1, "b": 2}).of("a"), Deciles({"a": 1, "b": 2}).of("new")
    ('decile 3 (1 user)', 'no training user')
    """

    def __init__(self, popularity: Mapping[str, int]) -> None:
        self._popularity = popularity
        counts = np.sort(np.array([n for n in popularity.values() if n > 0], dtype=np.int64))
        values = np.unique(counts)
        below, upto = np.searchsorted(counts, values, "left"), np.searchsorted(counts, values, "right")
        middle = (below + upto) / 2 / max(1, len(counts))
        self._decile = dict(
            zip(values.tolist(), (np.minimum(middle * DECILES, DECILES - 1).astype(int) + 1).tolist(), strict=True)
        )

    @property
    def names(self) -> list[str]:
        """Every slice, least popular first."""
        return ["no training user", *(self._name(d) for d in sorted(set(self._decile.values())))]

    def of(self, item_id: str) -> str:
        """The slice of an item."""
        users = self._popularity.get(item_id, 0)
        return self._name(self._decile[users]) if users else "no training user"

    def _name(self, decile: int) -> str:
        counts = [n for n, d in self._decile.items() if d == decile]
        low, high = min(counts), max(counts)
        users = f"{low:,}" if low == high else f"{low:,}–{high:,}"
        return f"decile {decile} ({users} user{'' if high == 1 else 's'})"


def _sliced(
    empty: Slicing,
    cases: Sequence[Case],
    groups: Sequence[RankerRuns],
    names: Sequence[str],
    slice_of: Callable[[Case], str],
) -> Slicing:
    members: dict[str, set[str]] = {name: set() for name in names}
    for case in cases:
        members[slice_of(case)].add(case.user_id)
    return Slicing(
        empty.name,
        empty.by,
        empty.caption,
        tuple(Slice(name, frozenset(users), _figures(users, groups)) for name, users in members.items() if users),
    )


def _figures(users: set[str], groups: Sequence[RankerRuns]) -> dict[str, dict[str, Estimate]]:
    out = {}
    for group in groups:
        frame = group.users[group.users.index.isin(users)]
        if len(frame):
            out[group.label] = {metric: bootstrap_mean(frame[metric].to_numpy(), seed=0) for metric in SLICE_METRICS}
    return out


def slice_table(slicing: Slicing, groups: Sequence[RankerRuns]) -> Table:
    """One line per slice and ranker."""
    size = groups[0].size
    rows: list[TableRow] = []
    for each in slicing.slices:
        for group in groups:
            found = each.figures.get(group.label, {})
            cells: list[TableCell] = [estimate_cell(found[m]) if found else NONE for m in SLICE_METRICS]
            users = count_cell(next(iter(found.values())).n if found else 0)
            rows.append(table_row(word_cell(each.name), word_cell(group.label), *cells, users))
    caption = f"{slicing.caption} 95% intervals over the users of the slice, not corrected for the number of slices."
    columns = (slicing.by, "ranker", *(f"{m}/{size}" for m in SLICE_METRICS), "users")
    return Table(f"by-{slicing.name}", f"By {slicing.by}", caption, columns, tuple(rows))
