"""Ranker and fit of the sequential recommenders.

They are not cornac's, which are slower. Measured on Amazon Toys (target `last`, 29 uniform negatives, 2,000 to 4,000
dev users; CPU seconds of a shared core, cornac's extrapolated from one or two epochs): cornac's SASRec reached HR@5 .59
after 310 s, its GPT-2 with next-item loss .55 after 230 s, its masked BERT .53 after 200 s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.baseline import TrainingData, rank_by_rows
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.item_texts import item_texts
from evaluate.baselines.networks.sequence_settings import SequenceSettings, TextSettings
from signatures.rows import Case, Ranking

if TYPE_CHECKING:
    from evaluate.baselines.networks.sequence_network import SequenceNetwork
    from evaluate.baselines.networks.sequence_training import Augmenter


class SequenceRanker:
    """Ranks by a trained network.

    History items without a vector are ignored. Without any known history item the biases decide, which approximate
    popularity. For candidates without a vector see `unknown_below`.

    Args:
        rows: Row by item id.
        users: Row by user id, for networks with a vector of the user; all others share one of zeros.
    """

    def __init__(
        self, settings: SequenceSettings, rows: dict[str, int], users: Mapping[str, int], network: SequenceNetwork
    ) -> None:
        self.settings = settings
        self.rows = rows
        self.users = users
        self.network = network

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""

        def scores_of(rows: NDArray[np.int64]) -> NDArray[np.float32]:
            return self.list_scores([case], np.zeros_like(rows), rows)

        return rank_by_rows(case, self.rows, scores_of, self.settings.name)

    def list_scores(
        self, cases: Sequence[Case], owner: NDArray[np.int64], items: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """Scores of n items by row, each for the user of a case, shape (n,).

        Args:
            owner: Shape (n,): number of the case.
        """
        histories = [_rows(self.rows[item] for item in case.item_ids if item in self.rows) for case in cases]
        users = [self.users.get(case.user_id, self.network.unknown_user) for case in cases]
        return self.network.list_scores(histories, users, owner, items)


def fit_sequences(
    settings: SequenceSettings,
    training: TrainingData,
    seed: int,
    fitting: Fitting = UNKEPT,
    augment: Augmenter | None = None,
) -> SequenceRanker:
    """Fit a sequential recommender; see `Baseline.fit`.

    Args:
        augment: Gives other sequences to train on. The settings decide what it does, as they name the kept fit.
    """
    settings.require_torch()
    from evaluate.baselines.networks.sequence_training import train

    rows: dict[str, int] = {}
    users: dict[str, int] = {}
    sequences = []
    for user, history in training.histories.items():
        if history:
            users[user] = len(users)
            sequences.append(_rows(rows.setdefault(item, len(rows)) for item in history))
    trained, plan, vectors = len(rows), settings.plan(training, seed, fitting), None
    if isinstance(settings, TextSettings):
        texts = item_texts(training, settings.text, settings.name, fitting.on_event)
        rows, vectors = texts.after(rows)
        plan = plan.suffixed(texts.sha256[:16])
    network = train(sequences, trained, settings, plan, vectors, augment)
    return SequenceRanker(settings, rows, users, network)


class SequenceFit:
    """The fit of the systems of which the settings say everything; stands before the settings among their bases.

    It is not in `SequenceSettings`, as networks and their training are made of settings: the modules would be a loop.
    """

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> SequenceRanker:
        """Train; see `Baseline.fit`.

        Raises:
            InputError: if texts of items are read and no item has one.
        """
        assert isinstance(self, SequenceSettings)  # noqa: S101 - what the class is for
        return fit_sequences(self, training, seed, fitting)


def _rows(numbers: Iterable[int]) -> NDArray[np.int64]:
    return np.fromiter(numbers, dtype=np.int64)
