"""Rankers of the user's own: any callable that scores candidates, or any object with `rank(case)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from programs.ranker import Ranker, ranking_from_scores
from programs.runtime.errors import InputError
from signatures.rows import Case, Ranking

ScoreFunction = Callable[[Sequence[str], Sequence[str]], Any]
"""Takes a history and n candidates, both item ids, and gives n scores, higher is better."""


class FunctionRanker:
    """Ranks by a function of history and candidates.

    Args:
        name: What results call it.
    """

    def __init__(self, function: ScoreFunction, name: str) -> None:
        self.function = function
        self.name = name

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; ties are broken by the user's seed.

        Raises:
            InputError: if the function gives anything but one number per candidate.
        """
        given = self.function(case.item_ids, case.candidates)
        try:
            scores = np.asarray(given, dtype=float)
        except (TypeError, ValueError):
            raise InputError(
                f"{self.name}: gave {type(given).__name__} for user {case.user_id!r}, not scores"
            ) from None
        if scores.shape != (len(case.candidates),):
            raise InputError(
                f"{self.name}: gave scores of shape {scores.shape} for user {case.user_id!r}; "
                f"give one per candidate, {len(case.candidates)}"
            )
        if not np.isfinite(scores).all():
            raise InputError(f"{self.name}: gave a score that is no finite number for user {case.user_id!r}")
        return ranking_from_scores(case, {self.name: scores.tolist()}, by=self.name)


def own_ranker(ranker: object, name: str | None) -> tuple[str, Ranker]:
    """A user's ranker and its name in results.

    Raises:
        InputError: if it is neither callable nor has a `rank` method.
    """
    named = name or getattr(ranker, "name", None) or getattr(ranker, "__name__", None) or type(ranker).__name__
    named = "own" if named == "<lambda>" else str(named)
    if isinstance(ranker, Ranker):
        return named, ranker
    if callable(ranker):
        return named, FunctionRanker(ranker, named)
    raise InputError(
        f"a {type(ranker).__name__} is no ranker: give a name, a folder with an artifact, a program, a function of "
        "(history, candidates), or an object with rank(case)"
    )
