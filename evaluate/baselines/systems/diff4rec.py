"""Diff4Rec (Wu et al., MM 2023): SASRec on sequences into which a diffusion recommender inserts items."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.augmenter_settings import Diff4RecSettings
from evaluate.baselines.networks.sequence_ranker import SequenceRanker, fit_sequences
from evaluate.baselines.systems.diffrec import DiffRec
from evaluate.baselines.systems.sasrec import SASRec, sasrec_inside


class Diff4Rec(Diff4RecSettings):
    """Diff4Rec around SASRec. Memory: that of `diffrec` and of two of `sasrec`.

    Attributes:
        diffusion: Settings of the DiffRec that proposes items.
    """

    name: ClassVar[str] = "diff4rec"

    diffusion: DiffRec = Field(default_factory=DiffRec)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(inserted=0.1), cls(auxiliary=0.3), cls(auxiliary=0.0), cls(dropout=0.2))

    def part_versions(self) -> tuple[int, ...]:
        """See `Baseline.part_versions`: DiffRec's and SASRec's."""
        return DiffRec.fit_version, SASRec.fit_version

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> SequenceRanker:
        """Train DiffRec, SASRec, and SASRec on augmented sequences; see `Baseline.fit`."""
        self.require_torch()
        from evaluate.baselines.networks.diff4rec_augmenter import Diff4RecAugmenter

        scorer, items = sasrec_inside(self, training)
        augment = Diff4RecAugmenter(self, self.diffusion, scorer, items, self.plan(training, seed, fitting))
        return fit_sequences(self, training, seed, fitting, augment)


FIRST_DIFF4REC = Diff4Rec(layers=1, patience=5)
"""The default before it had the blocks and the patience of `sasrec`: runs that were begun with it go on with it."""
