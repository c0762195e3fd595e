"""Augmenter of Diff4Rec: items that DiffRec and SASRec agree on are inserted, those of easy users first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from evaluate.baselines.networks.augmenter_settings import Diff4RecSettings
from evaluate.baselines.networks.diffrec_network import DiffRecNetwork, train_diffrec
from evaluate.baselines.networks.diffrec_settings import DiffRecSettings
from evaluate.baselines.networks.fit_plan import FitPlan
from evaluate.baselines.networks.interactions import distinct
from evaluate.baselines.networks.sequence_network import Rows, SequenceNetwork
from evaluate.baselines.networks.sequence_settings import SequenceSettings
from evaluate.baselines.networks.sequence_training import train

_USERS = 200
"""Users whose rows are dense at a time."""


@dataclass
class Diff4RecAugmenter:
    """Inserts at most one item into a sequence; see `Augmenter`.

    Both scorers are fitted, when first needed, on the sequences that are to be augmented: what is held out to stop the
    augmented training is in neither.

    Attributes:
        settings: Hyperparameters.
        proposer: Settings of the DiffRec that proposes items.
        scorer: Settings of the SASRec that scores them.
        items: Number of items with users.
        plan: Of the augmented fit; the fits of the scorers are kept beside it.
    """

    settings: Diff4RecSettings
    proposer: DiffRecSettings
    scorer: SequenceSettings
    items: int
    plan: FitPlan
    _likely: Likely | None = field(default=None, init=False)

    def __call__(
        self, number: int, training: Sequence[Rows], rng: np.random.Generator
    ) -> list[tuple[Rows, NDArray[np.float32]]]:
        """See `Augmenter`."""
        if self._likely is None:
            self._likely = self._scored(training)
        easy = self._likely.easiest(min(1.0, number / self.settings.ramp))
        new = self._likely.new
        chosen = easy & (new > 0) & (rng.random(len(training)) < self.settings.inserted)
        pick = rng.integers(self._likely.rows.shape[1], size=len(training))
        found = []
        for user, own in enumerate(training):
            weights = np.ones(len(own), dtype=np.float32)
            if chosen[user]:
                place = int(rng.integers(1, len(own) + 1))
                own = np.insert(own, place, self._likely.rows[user, pick[user] % new[user]])
                weights = np.insert(weights, place, np.float32(self.settings.auxiliary))
            found.append((own, weights))
        return found

    def _scored(self, training: Sequence[Rows]) -> Likely:
        histories = [distinct(own.tolist()) for own in training]
        proposer, scorer = self.proposer, self.scorer
        diffusion = train_diffrec(histories, self.items, proposer, proposer.plan_beside(self.plan, "diffusion"))
        sequences = train(training, self.items, scorer, scorer.plan_beside(self.plan, "scorer"))
        return likely_items(diffusion, sequences, training, self.settings)


@dataclass(frozen=True)
class Likely:
    """Items that a user is likely to want.

    Attributes:
        rows: Shape (users, kept); those that are new to the user first.
        new: How many of them are new, shape (users,): fewer than kept for a user who has nearly all items.
        agreement: How much the two scorers agree on them, shape (users,).
    """

    rows: NDArray[np.int64]
    new: NDArray[np.int64]
    agreement: NDArray[np.float64]

    def easiest(self, share: float) -> NDArray[np.bool_]:
        """Which users are in that share of all with the most agreement."""
        places = np.argsort(np.argsort(-self.agreement, kind="stable"))
        return np.asarray(places < share * len(places))


@torch.no_grad()
def likely_items(
    diffusion: DiffRecNetwork, sequences: SequenceNetwork, training: Sequence[Rows], settings: Diff4RecSettings
) -> Likely:
    """DiffRec's first unseen candidates, of which SASRec keeps its first; both see the training sequences alone.

    Agreement is minus the mean of the places that DiffRec gives to what SASRec keeps.
    """
    items, new, agreement = [], [], []
    candidates = min(settings.candidates, diffusion.items)
    kept = min(settings.kept, candidates)
    for start in range(0, len(training), _USERS):
        some = training[start : start + _USERS]
        scores = diffusion.denoised([distinct(own.tolist()) for own in some])
        for row, own in zip(scores, some, strict=True):
            row[torch.from_numpy(own)] = -torch.inf
        coarse = scores.topk(candidates, dim=1).indices
        states = sequences.last_states(some, torch.arange(start, start + len(some), device=coarse.device))
        unseen = torch.isfinite(scores.gather(1, coarse))
        fine = (sequences.vectors.outputs(coarse) @ states[:, :, None])[:, :, 0] + sequences.bias[coarse]
        places = fine.masked_fill(~unseen, -torch.inf).topk(kept, dim=1).indices
        items.append(coarse.gather(1, places).cpu().numpy())
        new.append(unseen.sum(dim=1).clamp_max(kept).cpu().numpy())
        agreement.append(-places.double().mean(dim=1).cpu().numpy())
    return Likely(np.concatenate(items), np.concatenate(new), np.concatenate(agreement))
