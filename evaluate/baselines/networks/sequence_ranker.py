"""Ranker and fit of the sequential recommenders.

SASRec and BERT4Rec are not cornac's, which are slower. Measured on Amazon Toys (target `last`, 29 uniform negatives,
2,000 to 4,000 dev users; CPU seconds of a shared core, cornac's extrapolated from one or two epochs): cornac's SASRec
reached HR@5 .59 after 310 s, its GPT-2 with next-item loss .55 after 230 s, its masked BERT .53 after 200 s; ours .59
after 90 to 130 s and .57 after 150 to 200 s.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.baseline import TrainingData, unknown_below
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.sequence_settings import SequenceSettings
from programs.ranker import ranking_from_scores
from programs.runtime.errors import require_extra
from signatures.rows import Case, Ranking

if TYPE_CHECKING:
    from evaluate.baselines.networks.sequence_network import Transformer


class SequenceRanker:
    """Ranks by a trained network.

    The user id is ignored, and so are history items without a vector. Without any known history item the biases decide,
    which approximate popularity. For candidates without a vector see `unknown_below`.
    """

    def __init__(self, settings: SequenceSettings, rows: dict[str, int], network: Transformer) -> None:
        self.settings = settings
        self.rows = rows
        self.network = network

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        from evaluate.baselines.networks.sequence_network import item_scores

        history = [self.rows[item] for item in case.item_ids if item in self.rows]
        known = {index: self.rows[item] for index, item in enumerate(case.candidates) if item in self.rows}
        known_scores = item_scores(self.network, _rows(history), _rows(known.values()), self.settings)
        scores = unknown_below(known_scores, list(known), len(case.candidates))
        name = self.settings.name
        return ranking_from_scores(case, {name: scores.tolist()}, by=name)


def fit_sequences(
    settings: SequenceSettings, training: TrainingData, seed: int, fitting: Fitting = UNKEPT
) -> SequenceRanker:
    """Fit a sequential recommender; see `Baseline.fit`."""
    for package in ("torch", "safetensors"):
        require_extra(package, "neural", f"the ranker '{settings.name}'")
    from evaluate.baselines.networks.sequence_network import train

    rows: dict[str, int] = {}
    sequences = [
        _rows(rows.setdefault(item, len(rows)) for item in history)
        for history in training.histories.values()
        if history
    ]
    return SequenceRanker(
        settings,
        rows,
        train(sequences, len(rows), settings, seed, settings.fit_folder(training, seed, fitting), fitting.on_event),
    )


def _rows(numbers: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(numbers, dtype=np.int64)
