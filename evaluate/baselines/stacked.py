"""`learned+mar`: the learned ranker's score and MAR's in one weighted sum, with weights learnt on a few dev users.

Language models are asked for some hundred users, not for the thousands that trees need. So the trees stay as they are
and their score is one feature among MAR's: the paired difference to `learned` says what the language model is worth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.features import FeatureSource, feature_table
from programs.prior.prior import z
from programs.ranker import ranking_from_scores
from programs.runtime.errors import InputError, require_extra
from signatures.rows import Case, Ranking

NAME = "learned+mar"


class StackedRanker:
    """Ranks by a weighted sum of standard scores, one per feature of the sources.

    Args:
        sources: Each with features of its own; what they do not know (NaN) counts as average.
        weights: One per feature.
    """

    def __init__(self, sources: Sequence[FeatureSource], weights: NDArray[np.float64]) -> None:
        self.name = NAME
        self.sources = tuple(sources)
        self.weights = weights

    @property
    def explained(self) -> dict[str, float]:
        """The weight of every feature, by its name."""
        names = [name for source in self.sources for name in source.names]
        return dict(zip(names, self.weights.tolist(), strict=True))

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`. The features' scores are recorded beside the sum."""
        table = standard_scores(self.sources, case)
        names = [name for source in self.sources for name in source.names]
        parts = {name: column.tolist() for name, column in zip(names, table.T, strict=True)}
        return ranking_from_scores(case, {**parts, self.name: (table @ self.weights).tolist()}, by=self.name)


def standard_scores(sources: Sequence[FeatureSource], case: Case) -> NDArray[np.float64]:
    """Features of the candidates, shape (n, k), each standardized over the case; 0 where nothing is known."""
    return np.nan_to_num(z(feature_table(sources, case)), nan=0.0)


def stack(sources: Sequence[FeatureSource], cases: Sequence[Case], seed: int) -> StackedRanker:
    """Learn the weights by logistic regression over all candidates of all lists.

    Args:
        sources: What is known of candidates; none may have seen a target.
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
    chosen = np.concatenate([[item == case.target for item in case.candidates] for case in cases])
    model = LogisticRegression(random_state=seed).fit(rows, chosen)
    return StackedRanker(sources, np.asarray(model.coef_[0], dtype=float))
