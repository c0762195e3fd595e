"""`RunDirectory`: the names of all files in a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MANIFEST, JOURNAL, LEDGER = "manifest.json", "journal.jsonl", "ledger.jsonl"
METRICS, TARGETS, RANKS, WEIGHTS = "metrics.json", "targets.json", "ranks.json", "weights.json"
IMPORTANCE, FIT_COST, LEARNED_FROM = "importance.json", "fit_cost.json", "learned_from.sha256"


@dataclass(frozen=True)
class RunDirectory:
    """The files of one run.

    Attributes:
        path: The folder; it need not exist.
    """

    path: Path

    @property
    def manifest(self) -> Path:
        """What was run: cases, ranker, configuration (`RunManifest`)."""
        return self.path / MANIFEST

    @property
    def journal(self) -> Path:
        """One checked row per ranked user (`Journal`)."""
        return self.path / JOURNAL

    @property
    def ledger(self) -> Path:
        """Every call to a language model (`Ledger`)."""
        return self.path / LEDGER

    @property
    def metrics(self) -> Path:
        """Metrics of the run (`RunMetrics`), written at the end of each session."""
        return self.path / METRICS

    @property
    def targets(self) -> Path:
        """Targets by user id, to audit the run without its cases file."""
        return self.path / TARGETS

    @property
    def ranks(self) -> Path:
        """Ranks of a full-catalogue run (`CatalogueRanks`), which has no rows."""
        return self.path / RANKS

    @property
    def weights(self) -> Path:
        """Weights that a stacked ranker learned on dev users."""
        return self.path / WEIGHTS

    @property
    def importance(self) -> Path:
        """Share of every feature in what a learned ranker's trees gain."""
        return self.path / IMPORTANCE

    @property
    def fit_cost(self) -> Path:
        """CPU time and memory of a trained baseline's fit (`FitCost`)."""
        return self.path / FIT_COST

    @property
    def learned_from(self) -> Path:
        """Hash of the answers of programs that a stacked ranker learned from and ranked with."""
        return self.path / LEARNED_FROM
