"""DiffuASR (Liu et al., CIKM 2023): SASRec on sequences that a diffusion has put further items before."""

from __future__ import annotations

from typing import ClassVar, Self

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.augmenter_settings import DiffuASRSettings
from evaluate.baselines.networks.sequence_ranker import SequenceRanker, fit_sequences
from evaluate.baselines.systems.sasrec import SASRec, sasrec_inside


class DiffuASR(DiffuASRSettings):
    """DiffuASR around SASRec. Memory: that of two of `sasrec`, and 200 sequences' cosines with all items."""

    name: ClassVar[str] = "diffuasr"

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(guidance=0.0), cls(generated=1), cls(guidance=3.0), cls(dropout=0.2))

    def part_versions(self) -> tuple[int, ...]:
        """See `Baseline.part_versions`: SASRec's."""
        return (SASRec.fit_version,)

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> SequenceRanker:
        """Train SASRec, the diffusion, and SASRec on augmented sequences; see `Baseline.fit`."""
        self.require_torch()
        from evaluate.baselines.networks.diffuasr_augmenter import DiffuASRAugmenter

        scorer, items = sasrec_inside(self, training)
        augment = DiffuASRAugmenter(self, scorer, items, self.plan(training, seed, fitting))
        return fit_sequences(self, training, seed, fitting, augment)


FIRST_DIFFUASR = DiffuASR(layers=1, patience=5)
"""The default before it had the blocks and the patience of `sasrec`: runs that were begun with it go on with it."""
