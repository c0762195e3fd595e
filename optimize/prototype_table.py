"""Precomputed scores of items with all candidate prototypes, and ranks of targets for any choice among them.

A choice takes a few milliseconds for a thousand users, and neither the encoder nor a language model.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from optimize.learned_prototypes import mean_of_rows
from optimize.objective import HIT_AT, ObjectiveWeights, UserScore, score_of_ranks
from programs.motivation_encoder import LEANING_ITEMS, leanings_of, mean_and_spread, texts_of
from programs.prior.scorers import scores_of
from programs.prior.standard_scores import z
from programs.program import Parts, mixed
from programs.prototypes import Prototypes, directions
from signatures.rows import Case

Ranks = NDArray[np.intp]


class PrototypeTable:
    """Ranks and scores of users, as the program `encoder` gives them.

    Args:
        cases: With their targets.
        parts: Parts of the program.
        options: Candidate prototypes; a choice takes one of them for each dimension.
        weights: The objective.
        interactions: See `ScoredProgram`: a program without MOPE has coherence 0 for users with two interactions.
    """

    def __init__(
        self,
        cases: Sequence[Case],
        parts: Parts,
        options: Sequence[Prototypes],
        weights: ObjectiveWeights,
        interactions: int,
    ) -> None:
        self.cases = cases
        self.options = options
        self.weights = weights
        self._coherence: list[float | None] = [
            0.0 if min(interactions, len(case.history)) >= 2 else None for case in cases
        ]
        catalogue = parts.catalogue
        pasts = [[event.item_id for event in case.history if event.item_id in catalogue] for case in cases]
        items = sorted({item for case in cases for item in case.candidates} | {item for own in pasts for item in own})
        place = {item: row for row, item in enumerate(items)}
        self._scores = self._standard_scores(parts, items)
        self._pasts = mean_of_rows([[place[item] for item in own[-LEANING_ITEMS:]] for own in pasts], len(items))
        width = max(len(case.candidates) for case in cases)
        self._shown = np.full((len(cases), width), -1, dtype=np.intp)
        self._prior = np.full((len(cases), width), np.nan)
        for row, case in enumerate(cases):
            self._shown[row, : len(case.candidates)] = [place[item] for item in case.candidates]
            self._prior[row, : len(case.candidates)] = z(np.asarray(scores_of(parts.prior, case), dtype=float))
        self._targets = np.array([case.candidates.index(case.target or "") for case in cases])

    def _standard_scores(self, parts: Parts, items: Sequence[str]) -> NDArray[np.float64]:
        """Standard scores over the catalogue, shape (options, items, dimensions); 0 for items without a text."""
        stacked = np.concatenate([directions(one, parts.encoder) for one in self.options])
        texts = texts_of(parts.catalogue)
        row = {text: index for index, text in enumerate(texts)}
        cosines = (parts.encoder.encode(texts) @ stacked.T).astype(float)
        mean, spread = mean_and_spread(cosines)
        known = np.array([row.get(parts.catalogue[item].text, -1) for item in items])
        scores = np.where(known[:, None] >= 0, (cosines[known] - mean) / spread, 0.0)
        return scores.reshape(len(items), len(self.options), -1).transpose(1, 0, 2)

    def mar(
        self, chosen: Sequence[int], weights: NDArray[np.float64], temperature: float | None
    ) -> NDArray[np.float64]:
        """MAR's scores of all candidates, shape (users, candidates), NaN where a list is shorter.

        Args:
            chosen: Index of the option for each dimension.
            weights: Weight of each dimension, with that of its option.
            temperature: See `Prototypes`.
        """
        scores = self._scores[list(chosen), :, np.arange(len(chosen))].T
        leanings = leanings_of(scores, weights, temperature)
        users = self._pasts @ leanings
        found = np.einsum("uk,uck->uc", users, leanings[self._shown])
        return np.where(self._shown >= 0, found, np.nan)

    def ranks(self, mar: NDArray[np.float64], weight: float) -> tuple[Ranks, Ranks]:
        """Ranks of the targets in the fused order and by MAR alone; ties count against the target."""
        return self._ranks(mixed(z(mar.T).T, self._prior, weight)), self._ranks(mar)

    def _ranks(self, scores: NDArray[np.float64]) -> Ranks:
        own = scores[np.arange(len(scores)), self._targets]
        ranks: Ranks = (scores >= own[:, None]).sum(axis=1)
        return ranks

    def mean_scores(self, ranks: tuple[Ranks, Ranks], users: slice) -> float:
        """Mean score of some users, as `UserScore.score`."""
        fused, own = (some[users] for some in ranks)
        of = self.weights
        known = np.array([of.ndcg + of.mar + of.hit + (of.coherence if c is not None else 0) for c in self._coherence])
        parts = of.ndcg / np.log2(fused + 1) + of.mar / np.log2(own + 1) + of.hit * (fused <= HIT_AT)
        return float(np.mean(parts / known[users]))

    def user_scores(self, ranks: tuple[Ranks, Ranks], users: slice) -> tuple[UserScore, ...]:
        """Scores of some users, as the program itself would get them."""
        fused, own = ranks
        return tuple(
            score_of_ranks(
                self.cases[row], int(fused[row]), int(own[row]), self.weights, coherence=self._coherence[row]
            )
            for row in range(*users.indices(len(self.cases)))
        )
