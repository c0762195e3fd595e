"""iALS, matrix factorisation of implicit feedback (Hu, Koren and Volinsky, ICDM 2008), with implicit."""

from __future__ import annotations

from typing import Any, ClassVar, Self

import numpy as np
from pydantic import Field
from scipy import sparse

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.factors import FactorRanker, Factors, FactorVectors
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.interactions import Interactions
from programs.runtime.errors import require_extra
from signatures.rows import Case


class IALS(Baseline):
    """Alternating least squares: every user-item pair is an observation, and those that occurred weigh more.

    Memory: 4 bytes for each factor of each user and item, and about 24 bytes for each interaction.

    Attributes:
        factors: Dimension of the vectors.
        epochs: Passes, each over all users and all items.
        weight: Weight of a pair that occurred; all others weigh 1.
        penalty: L2 regularization of all vectors.
    """

    name: ClassVar[str] = "ials"

    factors: int = Field(default=64, ge=1)
    epochs: int = Field(default=15, ge=1)
    weight: float = Field(default=10.0, ge=1)
    penalty: float = Field(default=1.0, ge=0)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(penalty=3.0), cls(penalty=0.1), cls(weight=40.0), cls(factors=128))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> IALSRanker:
        """Train; see `Baseline.fit`. A repeated purchase counts once."""
        require_extra("implicit", "baselines", f"the ranker '{self.name}'")
        from implicit.cpu.als import AlternatingLeastSquares
        from threadpoolctl import threadpool_limits

        data = Interactions.of(training.histories)
        with threadpool_limits(limits=1):
            model = AlternatingLeastSquares(
                factors=self.factors,
                iterations=self.epochs,
                alpha=self.weight,
                regularization=self.penalty,
                random_state=seed,
                num_threads=1,  # sums depend on the number of threads
            )
            model.fit(data.matrix(np.float32), show_progress=False)
        biases = np.zeros(len(data.items), dtype=np.float32)
        return IALSRanker(Factors(data.users, model.user_factors, data.items, model.item_factors, biases), model)


class IALSRanker(FactorRanker):
    """Ranks by iALS; the vector of a new user is the least-squares solution for their history.

    Args:
        model: The fitted model of implicit.
    """

    def __init__(self, factors: Factors, model: Any) -> None:
        super().__init__(IALS.name, factors)
        self._model = model

    def folded_in(self, case: Case) -> FactorVectors:
        """See `FactorRanker.folded_in`."""
        items = self.factors.items
        rows = [items[item] for item in dict.fromkeys(case.item_ids) if item in items]
        ones = np.ones(len(rows), dtype=np.float32)
        history = sparse.csr_matrix((ones, ([0] * len(rows), rows)), shape=(1, len(items)))
        return np.asarray(self._model.recalculate_user(0, history), dtype=np.float32)
