"""All runs of one ranker on one protocol, with each user's mean over draws and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from evaluate.report.record import ProtocolRecord, RunRecord, StudyRecord
from evaluate.runs.run_metrics import ranks_of
from evaluate.stats.metrics import Bounds, bounds, per_user
from programs.runtime.errors import InputError
from signatures.rows import Ranking, Status

PART_LABELS = {"prior": "prior alone", "mar": "MAR alone"}
"""Names in reports of the scores that are fused."""


@dataclass(frozen=True)
class RankerRuns:
    """The runs of one label on one protocol.

    Attributes:
        size: Length of the ranked lists.
    """

    label: str
    size: int
    protocol: ProtocolRecord
    runs: tuple[RunRecord, ...]

    @cached_property
    def cells(self) -> pd.DataFrame:
        """Metrics by user and draw, averaged over seeds; resolved users only."""
        return cells_of({(run.draw, run.seed): run.ranks for run in self.runs})

    @cached_property
    def users(self) -> pd.DataFrame:
        """Metrics by user, averaged over seeds and then over draws; intervals are over these users."""
        return over_draws(self.cells)

    def part(self, component: str) -> pd.DataFrame:
        """`cells` by one score alone; empty if no row has that score."""
        ranks = {}
        for run in self.runs:
            rows = {user: row for user, row in run.rows.items() if component in row.scores}
            ranks[run.draw, run.seed] = ranks_of(self.protocol.cases[run.draw].cases, rows, component)
        return cells_of(ranks)

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the scores that are fused; empty for other rankers."""
        # Where MAR answered nobody, its scores are all equal, and their order is a draw. Where it was not asked about
        # all users, it has no figures of the same users.
        answered = any(row.status is Status.OK for row in self.scored) and all(row.asked for row in self.scored)
        named = {name for row in self.scored for name in row.scores if answered or name != "mar"}
        return tuple(name for name in PART_LABELS if name in named) if "fused" in named else ()

    @property
    def scored(self) -> list[Ranking]:
        """Every scored row of every run."""
        return [row for run in self.runs for row in run.rows.values() if row.scored]

    @property
    def uses_lm(self) -> bool:
        """Whether the ranker uses a language model."""
        return any(run.stand_alone or run.usage for run in self.runs) or any(
            row.profile or row.traits or row.rationales for row in self.scored
        )

    @property
    def resolved(self) -> int:
        """Number of ranked cases in all runs."""
        return sum(len(run.ranks) for run in self.runs)

    @property
    def unresolved(self) -> int:
        """Number of unresolved cases in all runs."""
        return sum(run.unresolved for run in self.runs)

    @property
    def draws(self) -> int:
        """Number of draws."""
        return len({run.draw for run in self.runs})

    @property
    def seeds(self) -> int:
        """Number of training or sampling seeds; 1 if there are none."""
        return len({run.seed for run in self.runs})

    def bounds(self) -> Mapping[str, Bounds]:
        """Bounds of every metric over all resolved and unresolved cases, by sized name."""
        ranks = {f"{i}/{user}": rank for i, run in enumerate(self.runs) for user, rank in run.ranks.items()}
        return bounds(per_user(ranks), self.unresolved, negatives=self.size - 1)

    def sized(self, metric: str) -> str:
        """The metric's name with the length of the list, such as HR@5/30."""
        return f"{metric}/{self.size}"


def cells_of(ranks: Mapping[tuple[int, int | None], Mapping[str, int]]) -> pd.DataFrame:
    """Metrics by user and draw, averaged over seeds, from ranks by draw and seed."""
    frames = [per_user(found).assign(draw=draw) for (draw, _), found in ranks.items()]
    return pd.concat(frames).groupby(["user_id", "draw"]).mean()


def over_draws(cells: pd.DataFrame) -> pd.DataFrame:
    """Mean of every user over the draws."""
    return cells.groupby("user_id").mean()


def in_common(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both averaged over the lists (user and draw) that both ranked; may be empty."""
    both = a.index.intersection(b.index)
    return over_draws(a.loc[both]), over_draws(b.loc[both])


def ranker_runs(record: StudyRecord, protocol: ProtocolRecord) -> list[RankerRuns]:
    """The rankers of a protocol that ranked a user, in the order of the study.

    Raises:
        InputError: if a run ranked other cases than the protocol's, or lists of another length than other runs.
    """
    by_label: dict[str, list[RunRecord]] = {}
    for run in record.runs:
        if (run.dataset, run.protocol) == (protocol.dataset, protocol.name) and run.ranks:
            by_label.setdefault(run.ranker, []).append(run)
    found = [RankerRuns(label, runs[0].list_size, protocol, tuple(runs)) for label, runs in by_label.items()]
    for group in found:
        _check(group, found[0].size)
    return found


def _check(group: RankerRuns, size: int) -> None:
    where = f"{group.protocol.dataset}, {group.protocol.name}, {group.label!r}"
    if len({(run.draw, run.seed) for run in group.runs}) < len(group.runs):
        raise InputError(f"{where}: two runs have the same draw and seed; give each run once")
    for run in group.runs:
        cases = group.protocol.cases.get(run.draw)
        if cases is None:
            raise InputError(f"{where}: a run has draw {run.draw}, but the protocol has no such draw")
        if run.list_size != size:
            raise InputError(
                f"{where}: lists of {run.list_size} items, but other runs have {size}; they cannot be compared"
            )
        if run.ranks.keys() - {case.user_id for case in cases.cases}:
            raise InputError(f"{where}: draw {run.draw} ranks users who are not among its cases")


def unreported(record: StudyRecord, protocol: ProtocolRecord) -> Sequence[RunRecord]:
    """Runs of a protocol in which no user was ranked."""
    return [
        run for run in record.runs if (run.dataset, run.protocol) == (protocol.dataset, protocol.name) and not run.ranks
    ]
