"""Augmenter of DiffuASR: generated items stand before some of the sequences, and are never targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from evaluate.baselines.networks.augmenter_settings import DiffuASRSettings
from evaluate.baselines.networks.epochs import reproducible
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.sequence_diffusion import SequenceDenoiser, train_denoiser
from evaluate.baselines.networks.sequence_network import Rows
from evaluate.baselines.networks.sequence_settings import SequenceSettings
from evaluate.baselines.networks.sequence_training import train

_USERS = 200
"""Sequences that items are generated for at a time."""


@dataclass
class DiffuASRAugmenter:
    """Puts generated items before some of the sequences, others in every epoch; see `Augmenter`.

    The item vectors are those of a SASRec that is fitted, as the diffusion is, on the sequences that are to be
    augmented: what is held out to stop the augmented training is in neither.

    Attributes:
        settings: Hyperparameters.
        scorer: Settings of the SASRec.
        items: Number of items with users.
        plan: Of the augmented fit; the other fits are kept beside it.
    """

    settings: DiffuASRSettings
    scorer: SequenceSettings
    items: int
    plan: FitPlan
    _before: list[Rows] | None = field(default=None, init=False)

    def __call__(
        self, number: int, training: Sequence[Rows], rng: np.random.Generator
    ) -> list[tuple[Rows, NDArray[np.float32]]]:
        """See `Augmenter`."""
        if self._before is None:
            self._before = self._generated(training)
        longer = rng.random(len(training)) < self.settings.augmented
        found = []
        for before, own, more in zip(self._before, training, longer, strict=True):
            before = before[: len(before) if more else 0]
            weights = np.ones(len(before) + len(own), dtype=np.float32)
            weights[: len(before)] = 0
            found.append((np.concatenate([before, own]), weights))
        return found

    def _generated(self, training: Sequence[Rows]) -> list[Rows]:
        sequences = train(training, self.items, self.scorer, self.scorer.plan_beside(self.plan, "scorer"))
        table = sequences.vectors.outputs(torch.arange(self.items, device=sequences.device)).detach()
        plan = replace(
            self.plan.suffixed("diffusion"),
            task=f"fitting the diffusion of {self.settings.name}",
            epochs=self.settings.diffusion_epochs,
        )
        denoiser = train_denoiser(training, table, self.settings, plan)
        return generated(denoiser, training, plan.seed)


def generated(denoiser: SequenceDenoiser, training: Sequence[Rows], seed: int) -> list[Rows]:
    """Items before each sequence; none before one that has nearly all items, see `SequenceDenoiser.can_precede`."""
    found = [np.zeros(0, dtype=np.int64) for _ in training]
    places = [place for place, own in enumerate(training) if denoiser.can_precede(own)]
    with reproducible(seed):
        for start in range(0, len(places), _USERS):
            some = places[start : start + _USERS]
            shape = (len(some), denoiser.settings.generated, denoiser.table.shape[1])
            noise = torch.randn(shape, device=denoiser.table.device)
            before = denoiser.generate([training[place] for place in some], noise)
            for place, items in zip(some, before, strict=True):
                found[place] = items
    return found
