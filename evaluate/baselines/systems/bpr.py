"""BPR, Bayesian personalised ranking (Rendle et al., UAI 2009), with cornac."""

from __future__ import annotations

from typing import ClassVar, Self

from pydantic import Field

from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.factors import FactorRanker, Factors
from evaluate.baselines.fitting import UNKEPT, Fitting
from programs.runtime.errors import require_extra


class BPR(Baseline):
    """Matrix factorisation with a pairwise loss: a user's items are to score above other items.

    Attributes:
        factors: Dimension of the vectors.
        epochs: Passes over the interactions.
        rate: Learning rate.
        penalty: L2 regularization of all vectors.
    """

    name: ClassVar[str] = "bpr"

    factors: int = Field(default=128, ge=1)
    epochs: int = Field(default=200, ge=1)
    rate: float = Field(default=0.05, gt=0)
    penalty: float = Field(default=0.02, ge=0)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (
            cls(),
            cls(penalty=0.01),
            cls(penalty=0.04),
            cls(factors=64, epochs=100, penalty=0.03),
            cls(factors=64, epochs=100, rate=0.02, penalty=0.01),
        )

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> FactorRanker:
        """Train; see `Baseline.fit`. A repeated purchase counts once."""
        require_extra("cornac", "baselines", f"the ranker '{self.name}'")
        from cornac import models
        from cornac.data import Dataset

        triples = [(user, item, 1.0) for user, history in training.histories.items() for item in dict.fromkeys(history)]
        data = Dataset.build(triples, seed=seed)
        # With a seed cornac trains on one thread, whatever the number of threads.
        model = models.BPR(
            k=self.factors,
            max_iter=self.epochs,
            learning_rate=self.rate,
            lambda_reg=self.penalty,
            seed=seed,
            verbose=False,
        ).fit(data)
        fitted = Factors(data.uid_map, model.u_factors, data.iid_map, model.i_factors, model.i_biases)
        return FactorRanker(self.name, fitted)
