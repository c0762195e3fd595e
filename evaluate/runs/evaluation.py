"""`Evaluation`: the result of one ranker on some cases, with metrics, rows, usage and status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import pandas as pd

from evaluate.protocol.cases import Cases
from evaluate.runs.planted_recovery import Recovery
from evaluate.runs.run import RunStatus
from evaluate.runs.run_metrics import RunMetrics, paired_by_metric, ranks_of
from evaluate.stats.intervals import Difference, Estimate
from evaluate.stats.metrics import CUTOFFS, per_user
from programs.runtime.errors import InputError
from signatures.rows import Ranking, Usage

_Figure = TypeVar("_Figure")


def of_metric(figures: Mapping[str, _Figure], name: str) -> _Figure | None:
    """The figure of a metric that is named without the list length, such as `HR@5`."""
    return next((figure for known, figure in figures.items() if known.partition("/")[0] == name), None)


class MetricTable(dict[str, _Figure]):
    """Metrics by name (`HR@5/30`); the list length may be left out (`HR@5`)."""

    def __missing__(self, name: str) -> _Figure:
        found = of_metric(self, name)
        if found is None:
            raise KeyError(f"no metric {name!r}; there are {', '.join(self)}")
        return found


@dataclass(frozen=True)
class Evaluation:
    """Result of one ranker on some cases.

    Attributes:
        ranker: Its name in tables.
        cases: The ranked cases.
        figures: All metrics of the run, as written to `metrics.json`.
        rows: The ranking of every user, failed ones included.
        status: How the run ended: complete, or the number of cases left and why.
        directory: The run directory, or None if the run was not kept.
        against: Paired differences, this minus the other run, by metric; empty without a comparison.
        recovered: How well profiles recover planted motivations; None except on the demo store.
        usage_by_role: Calls, tokens, dollars and seconds of the whole run by role; empty without a language model.
    """

    ranker: str
    cases: Cases
    figures: RunMetrics
    rows: Mapping[str, Ranking]
    status: RunStatus
    directory: Path | None = None
    against: MetricTable[Difference] = field(default_factory=MetricTable)
    recovered: Recovery | None = None
    usage_by_role: Mapping[str, Usage] = field(default_factory=dict)

    @property
    def metrics(self) -> MetricTable[Estimate]:
        """Mean and 95% interval of each metric of the ranker's order: `result.metrics["HR@5"].mean`."""
        return MetricTable(self.figures.metrics)

    @property
    def further(self) -> MetricTable[Estimate]:
        """Likewise for the metrics at the cutoffs that were asked for: `result.further["MRR@3"].mean`."""
        return MetricTable(self.figures.further)

    @property
    def components(self) -> dict[str, MetricTable[Estimate]]:
        """Likewise for each score vector alone: `prior`, `mar`, `fused`."""
        return {name: MetricTable(metrics) for name, metrics in self.figures.components.items()}

    @cached_property
    def ranks(self) -> dict[str, int]:
        """1-based rank of the target by user; users without a scored row are absent."""
        return ranks_of(self.cases.cases, self.rows)

    @cached_property
    def per_user(self) -> pd.DataFrame:
        """One row per ranked user: every metric, `rank` of the target, and `status` of the row."""
        frame = per_user(self.ranks)
        frame["rank"] = pd.Series(self.ranks)
        frame["status"] = pd.Series({user: str(self.rows[user].status) for user in self.ranks})
        return frame

    @property
    def usage(self) -> Usage:
        """Calls, tokens, dollars and seconds of the whole run."""
        return self.figures.usage

    @property
    def complete(self) -> bool:
        """Whether every case has a scored row."""
        return self.status.complete

    def minus(self, other: Evaluation, ks: Sequence[int] = CUTOFFS) -> MetricTable[Difference]:
        """Paired differences to another evaluation on the same cases, by metric.

        Args:
            ks: Cutoffs of HR and NDCG.

        Raises:
            InputError: if the two ranked different cases.
        """
        other.require_cases(self.cases)
        return MetricTable(paired_by_metric(self.ranks, other.ranks, len(self.cases[0].candidates), ks))

    def require_cases(self, cases: Cases) -> None:
        """Check that these cases were ranked.

        Raises:
            InputError: if others were.
        """
        if self.cases.sha256 != cases.sha256:
            raise InputError(f"{self.ranker} ranked other cases than these: evaluate both on the same cases")

    def to_frame(self) -> pd.DataFrame:
        """One row per component (the ranker's order first), with mean, low and high of each metric, and n."""
        rows = {self.ranker: self.figures.metrics} | {
            f"{name} alone" if name in ("prior", "mar") else name: metrics
            for name, metrics in self.figures.components.items()
            if name != self.ranker
        }
        return pd.DataFrame(
            [
                {"scores": label, "n": self.figures.users}
                | {f"{name} {part}": getattr(estimate, part) for name, estimate in metrics.items() for part in _PARTS}
                for label, metrics in rows.items()
            ]
        ).set_index("scores")

    def __str__(self) -> str:
        figures = ", ".join(
            f"{name} {value.mean:.3f} [{value.low:.3f}, {value.high:.3f}]" for name, value in self.metrics.items()
        )
        ended = "" if self.complete else f"; {self.figures.unresolved} unresolved"
        return f"{self.ranker}: {figures}; n={self.figures.users}{ended}"


_PARTS = ("mean", "low", "high")
