"""EASE, embarrassingly shallow autoencoder (Steck, WWW 2019): a linear map between items, in closed form."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import sparse
from scipy.linalg import lapack

from evaluate.baselines.baseline import Baseline, TrainingData, rank_by_rows
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.networks.interactions import Interactions
from programs.runtime.errors import InputError, require_extra
from programs.runtime.events import Note
from signatures.rows import Case, Ranking

MOST_ITEMS = 20_000
"""Most items with users: the fit holds a square matrix of them, 12 bytes an entry at its peak, 4.8 GB for so many."""


class EASE(Baseline):
    """EASE: B = I - P diag(1 / P) with P = (X'X + penalty I)^-1 and users' items X; scores are x B (eq. 8).

    Nothing is drawn at random, and nothing is kept: the fit is one matrix inversion.

    Attributes:
        penalty: L2 regularization of B.
    """

    name: ClassVar[str] = "ease"

    penalty: float = Field(default=100.0, gt=0)

    @classmethod
    def grid(cls) -> tuple[Self, ...]:
        """See `Baseline.grid`."""
        return (cls(), cls(penalty=10.0), cls(penalty=30.0), cls(penalty=300.0), cls(penalty=1000.0))

    def fit(self, training: TrainingData, seed: int, fitting: Fitting = UNKEPT) -> EASERanker:
        """Solve; see `Baseline.fit`. A repeated purchase counts once.

        Raises:
            InputError: if more than `MOST_ITEMS` items have users.
        """
        require_extra("threadpoolctl", "baselines", f"the ranker '{self.name}'")
        from threadpoolctl import threadpool_limits

        data = Interactions.of(training.histories)
        n = len(data.items)
        if n > MOST_ITEMS:
            raise InputError(
                f"the ranker '{self.name}' needs a matrix of items by items, and {n:,} items have users: it takes at "
                f"most {MOST_ITEMS:,} ({12e-9 * MOST_ITEMS**2:.1f} GB of memory); use 'ials', which has no such matrix"
            )
        fitting.on_event(Note(f"solving {self.name}: {n:,} by {n:,} items"))
        with threadpool_limits(limits=1):
            return EASERanker(data.items, _solved(data.matrix(np.float64), self.penalty))


def _solved(x: sparse.csr_matrix, penalty: float) -> NDArray[np.float32]:
    """B for users' items X: one array of float64 is overwritten twice, then two of float32 are left."""
    gram = (x.T @ x).toarray(order="F")
    gram[np.diag_indices(len(gram))] += penalty
    factor, _ = lapack.dpotrf(gram, lower=1, overwrite_a=1)
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    weights = inverse.astype(np.float32)
    diagonal = np.diag(weights).copy()
    del gram, factor, inverse
    weights = np.tril(weights, -1)
    weights += weights.T.copy()
    weights /= -diagonal
    return weights


class EASERanker:
    """Ranks by the summed weights from the history's items; the user id is ignored.

    For items without users see `unknown_below`; a history without a known item gives all others the same score.

    Args:
        rows: Row by item id.
        weights: B, shape (items, items): from the item of the row to that of the column.
    """

    def __init__(self, rows: dict[str, int], weights: NDArray[np.float32]) -> None:
        self.rows = rows
        self.weights = weights

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; see `Ranker.rank`."""
        known = (self.rows[item] for item in dict.fromkeys(case.item_ids) if item in self.rows)
        history = np.fromiter(known, dtype=np.int64)

        def scores_of(rows: NDArray[np.int64]) -> NDArray[np.float64]:
            return np.asarray(self.weights[np.ix_(history, rows)].sum(axis=0, dtype=float))

        return rank_by_rows(case, self.rows, scores_of, EASE.name)
