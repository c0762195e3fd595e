"""NeuMF, neural collaborative filtering (He et al., WWW 2017): factors and a network, joined."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.baseline import TrainingData, rank_by_rows
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.interactions import Interactions
from evaluate.baselines.networks.neumf_settings import NeuMFSettings
from signatures.rows import Case, Ranking

if TYPE_CHECKING:
    from evaluate.baselines.networks.neumf_network import NeuMFNetwork


class NeuMF(NeuMFSettings):
    """NeuMF without pre-training of its parts, and with a penalty on the vectors of each pair.

    Memory: about 20 bytes for each dimension of each user's and item's two vectors (weights and their best, gradients,
    Adam).
    """

    name: ClassVar[str] = "neumf"
    fit_version: ClassVar[int] = 2

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(rate=5e-4), cls(factors=64), cls(negatives=8), cls(penalty=0.01))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> NeuMFRanker:
        """Train; see `Baseline.fit`. A repeated purchase counts once, where it was made last."""
        self.require_torch()
        from evaluate.baselines.networks.neumf_network import train_neumf

        data = Interactions.of(training.histories)
        network = train_neumf(data.histories, len(data.items), self, self.plan(training, seed, fitting))
        return NeuMFRanker(data, network)


class NeuMFRanker:
    """Ranks by a trained network.

    A new user gets the mean, over the known items of their history, of the mean vector of each item's users; without
    any, the mean vector of all users. For candidates without a vector see `unknown_below`.

    Args:
        data: What the network was trained on.
    """

    def __init__(self, data: Interactions, network: NeuMFNetwork) -> None:
        self.users, self.rows, self.network = data.users, data.items, network
        self._vectors: NDArray[np.float32] = network.user.weight.detach().cpu().numpy()
        bought = data.matrix(np.float32).T.tocsr()
        self._of_users = (bought @ self._vectors) / bought.sum(axis=1).A1[:, None]

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        user = self.user_vector(case)
        return rank_by_rows(case, self.rows, lambda rows: self.network.scores(user, rows), NeuMF.name)

    def user_vector(self, case: Case) -> NDArray[np.float32]:
        """The vector of the user of a case, shape (d,)."""
        if case.user_id in self.users:
            return self._vectors[self.users[case.user_id]]
        history = [self.rows[item] for item in case.item_ids if item in self.rows]
        mean = self._of_users[history].mean(axis=0) if history else self._vectors.mean(axis=0)
        return np.asarray(mean, dtype=np.float32)
