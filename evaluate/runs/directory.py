"""The run directory: the one place that names its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

MANIFEST, JOURNAL, LEDGER = "manifest.json", "journal.jsonl", "ledger.jsonl"
METRICS, TARGETS, RANKS, WEIGHTS = "metrics.json", "targets.json", "ranks.json", "weights.json"


@dataclass(frozen=True)
class RunDirectory:
    """Where one run keeps its files.

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
        """The figures of the run (`RunMetrics`), written each time the run ends or pauses."""
        return self.path / METRICS

    @property
    def targets(self) -> Path:
        """Target by user id, so that the run can be audited without its cases file."""
        return self.path / TARGETS

    @property
    def ranks(self) -> Path:
        """Ranks of a full-catalogue run (`CatalogueRanks`), which keeps no rows."""
        return self.path / RANKS

    @property
    def weights(self) -> Path:
        """Weights that a stacked ranker learned on dev users."""
        return self.path / WEIGHTS
