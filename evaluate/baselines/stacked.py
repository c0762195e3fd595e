"""Version 1 of `learned+mar`, to finish and to reproduce runs that were begun with it: a weighted sum of two scores.

Its weights were learned on a few dev users. Now MAR's scores are features of `learned` (`sources/asked.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.features_v1 import FeatureSource, feature_table
from programs.prior.standard_scores import z
from programs.ranker import ranking_from_scores
from programs.runtime.errors import InputError, require_extra
from signatures.rows import Case, Ranking

NAME = "learned+mar"


class StackedRanker:
    """Ranks by a weighted sum of standard scores, one per feature of the sources.

    Args:
        sources: Sources of distinct features; unknown values (NaN) count as average.
        weights: One per feature.
    """

    def __init__(self, sources: Sequence[FeatureSource], weights: NDArray[np.float64]) -> None:
        self.name = NAME
        self.sources = tuple(sources)
        self.weights = weights

    @property
    def names(self) -> list[str]:
        """Names of the features."""
        return [name for source in self.sources for name in source.names]

    @property
    def weight_by_feature(self) -> dict[str, float]:
        """The weight of every feature, by its name."""
        return dict(zip(self.names, self.weights.tolist(), strict=True))

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`. The features' scores are recorded beside the sum."""
        table = standard_scores(self.sources, case)
        parts = {name: column.tolist() for name, column in zip(self.names, table.T, strict=True)}
        return ranking_from_scores(case, {**parts, self.name: (table @ self.weights).tolist()}, by=self.name)


def standard_scores(sources: Sequence[FeatureSource], case: Case) -> NDArray[np.float64]:
    """Features of the candidates, shape (n, k), each standardized over the case; 0 for unknown values."""
    return np.nan_to_num(z(feature_table(sources, case)), nan=0.0)


def stack(sources: Sequence[FeatureSource], cases: Sequence[Case], seed: int) -> StackedRanker:
    """Learn the weights by logistic regression over all candidates of all lists.

    Args:
        sources: Features of candidates; none may be fitted on targets.
        cases: Dev users with targets.

    Raises:
        InputError: if there are no cases, or one has no target.
        MissingExtraError: if scikit-learn is not installed.
    """
    require_extra("sklearn", "baselines", f"the ranker '{NAME}'")
    from sklearn.linear_model import LogisticRegression

    if not cases or any(case.target is None for case in cases):
        raise InputError(f"'{NAME}' needs dev cases with targets to learn its weights from")
    rows = np.vstack([standard_scores(sources, case.blinded()) for case in cases])
    is_target = np.concatenate([[item == case.target for item in case.candidates] for case in cases])
    model = LogisticRegression(random_state=seed).fit(rows, is_target)
    return StackedRanker(sources, np.asarray(model.coef_[0], dtype=float))
