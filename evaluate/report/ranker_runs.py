"""All runs of one ranker on one protocol, with every user's mean over draws and seeds."""

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
"""Score vectors of a fused row that are shown on their own, with their names in reports."""


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
        return _cells({(run.draw, run.seed): run.ranks for run in self.runs})

    @cached_property
    def users(self) -> pd.DataFrame:
        """Metrics by user, averaged over seeds, then draws: the sample of every interval."""
        return over_draws(self.cells)

    def part(self, component: str) -> pd.DataFrame:
        """`cells` of one score vector on its own; empty where no row has it."""
        ranks = {}
        for run in self.runs:
            rows = {user: row for user, row in run.rows.items() if component in row.scores}
            ranks[run.draw, run.seed] = ranks_of(self.protocol.cases[run.draw].cases, rows, component)
        return _cells(ranks)

    @property
    def parts(self) -> tuple[str, ...]:
        """Components shown on their own: those of rows that fuse several."""
        named = {name for run in self.runs for row in run.rows.values() for name in row.scores}
        return tuple(name for name in PART_LABELS if name in named) if "fused" in named else ()

    @property
    def scored(self) -> list[Ranking]:
        """Every scored row of every run."""
        return [row for run in self.runs for row in run.rows.values() if row.status is not Status.FAILED]

    @property
    def uses_lm(self) -> bool:
        """Whether a language model was asked."""
        return any(run.stand_alone or run.usage for run in self.runs) or any(
            row.profile or row.traits or row.rationales for row in self.scored
        )

    @property
    def resolved(self) -> int:
        """Ranked cases over all runs."""
        return sum(len(run.ranks) for run in self.runs)

    @property
    def unresolved(self) -> int:
        """Cases without a result over all runs."""
        return sum(run.unresolved for run in self.runs)

    @property
    def draws(self) -> int:
        """Different draws."""
        return len({run.draw for run in self.runs})

    @property
    def seeds(self) -> int:
        """Different training or sampling seeds; 1 where there are none."""
        return len({run.seed for run in self.runs})

    def bounds(self) -> Mapping[str, Bounds]:
        """Bounds of every metric over resolved and unresolved cases of all runs together, by sized name."""
        ranks = {f"{i}/{user}": rank for i, run in enumerate(self.runs) for user, rank in run.ranks.items()}
        return bounds(per_user(ranks), self.unresolved, negatives=self.size - 1)

    def sized(self, metric: str) -> str:
        """The metric's name with the length of the list, without which it means nothing."""
        return f"{metric}/{self.size}"


def _cells(ranks: Mapping[tuple[int, int | None], Mapping[str, int]]) -> pd.DataFrame:
    frames = [per_user(found).assign(draw=draw) for (draw, _), found in ranks.items()]
    return pd.concat(frames).groupby(["user_id", "draw"]).mean()


def over_draws(cells: pd.DataFrame) -> pd.DataFrame:
    """Mean of every user over the draws."""
    return cells.groupby("user_id").mean()


def in_common(a: pd.DataFrame, b: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both averaged over exactly the lists (user and draw) that both ranked; empty where there are none."""
    both = a.index.intersection(b.index)
    return over_draws(a.loc[both]), over_draws(b.loc[both])


def ranker_runs(record: StudyRecord, protocol: ProtocolRecord) -> list[RankerRuns]:
    """The rankers of a protocol in the order in which the study first names them, those without a ranked user left out.

    Raises:
        InputError: if a run ranked cases the protocol does not have, or lists of another length than the others.
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
        raise InputError(f"{where}: a draw and seed comes twice; give every run once")
    for run in group.runs:
        cases = group.protocol.cases.get(run.draw)
        if cases is None:
            raise InputError(f"{where}: a run of draw {run.draw}, which the protocol does not have")
        if run.list_size != size:
            raise InputError(f"{where}: lists of {run.list_size}, others have {size}; figures of both do not compare")
        if run.ranks.keys() - {case.user_id for case in cases.cases}:
            raise InputError(f"{where}: draw {run.draw} ranks users who are not among its cases")


def unreported(record: StudyRecord, protocol: ProtocolRecord) -> Sequence[RunRecord]:
    """Runs of a protocol in which no user was ranked."""
    return [
        run for run in record.runs if (run.dataset, run.protocol) == (protocol.dataset, protocol.name) and not run.ranks
    ]
