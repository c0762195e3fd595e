"""Texts of a user's own, not in the catalogue: they speak for items like them as items that nobody has do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from programs.prior.random_walk import RandomWalk
from programs.prior.scorers import NEIGHBOURS, ContentSimilarity, Scores


@dataclass(frozen=True)
class OwnTexts:
    """The m texts of one history that are in `ContentSimilarity.outside`.

    Attributes:
        vectors: Shape (m, d).
        reached: What the walk scores them, shape (m,): as an item that nobody has, see `RandomWalk.scores`.
    """

    vectors: NDArray[np.floating]
    reached: Scores

    @classmethod
    def of(
        cls, history: Sequence[str], content: ContentSimilarity, walk: RandomWalk, scores: NDArray[np.floating]
    ) -> OwnTexts | None:
        """Those of a history; None without any.

        Args:
            scores: Of the walk for this history, by column.
        """
        if not content.outside:
            return None
        vectors = {item: content.vector_outside(item) for item in dict.fromkeys(history)}
        own = {item: vector for item, vector in vectors.items() if vector is not None}
        if not own:
            return None
        weights = dict.fromkeys(own, 0.0)
        for age, item in enumerate(reversed(history[-walk.items_last :])):
            if item in weights:
                weights[item] += walk.decay**age
        reached = [scores[walk.columns[item]] if item in walk.columns else weight for item, weight in weights.items()]
        return cls(np.stack(list(own.values())), np.array(reached, dtype=float))

    def via(
        self,
        vectors: NDArray[np.floating],
        weights: NDArray[np.floating],
        values: NDArray[np.floating],
        via: Scores,
        most: int = NEIGHBOURS,
    ) -> Scores:
        """Mean scores of the neighbours of n items, these texts among them where they are near enough.

        Args:
            vectors: Of the n items, shape (n, d).
            weights: Of their k neighbours in the catalogue, shape (n, k), see `Neighbours`.
            values: What the walk scores these neighbours, shape (n, k).
            via: The mean without these texts, shape (n,).
            most: Neighbours that an item has, if there are as many.
        """
        own = np.clip((vectors @ self.vectors.T).astype(float), 0, None) ** 3
        least = weights.min(axis=1) if weights.shape[1] >= most else np.zeros(len(weights))
        near = np.flatnonzero(own.max(axis=1) > least)
        if not len(near):
            return via
        joined = np.hstack([weights[near], own[near]])
        scores = np.hstack([values[near], np.broadcast_to(self.reached, own[near].shape)])
        if joined.shape[1] > most:
            kept = np.argpartition(-joined, most - 1, axis=1)[:, :most]
            joined = np.take_along_axis(joined, kept, axis=1)
            scores = np.take_along_axis(scores, kept, axis=1)
        result = via.copy()
        result[near] = (joined * scores).sum(axis=1) / joined.sum(axis=1)
        return result
