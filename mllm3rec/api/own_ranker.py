"""Rankers given by the caller: any function that scores candidates, or any object with `rank(case)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from programs.ranker import Ranker, ranking_from_scores
from programs.runtime.errors import InputError
from signatures.rows import Case, Ranking

ScoreFunction = Callable[[Sequence[str], Sequence[str]], Any]
"""Takes the item ids of a history and of n candidates, and returns n scores; higher is better."""


class FunctionRanker:
    """Ranks by the scores of a function."""

    def __init__(self, function: ScoreFunction, name: str) -> None:
        self.function = function
        self.name = name

    def rank(self, case: Case) -> Ranking:
        """Rank the candidates of `case`; ties are broken by a seed of the user id.

        Raises:
            InputError: if the function does not return one number per candidate.
        """
        given = self.function(case.item_ids, case.candidates)
        try:
            scores = np.asarray(given, dtype=float)
        except (TypeError, ValueError):
            raise InputError(
                f"{self.name}: returned {type(given).__name__} for user {case.user_id!r} instead of scores"
            ) from None
        if scores.shape != (len(case.candidates),):
            raise InputError(
                f"{self.name}: returned scores of shape {scores.shape} for user {case.user_id!r}; "
                f"return one score for each of the {len(case.candidates)} candidates"
            )
        if not np.isfinite(scores).all():
            raise InputError(f"{self.name}: returned a score that is not finite for user {case.user_id!r}")
        return ranking_from_scores(case, {self.name: scores.tolist()}, by=self.name)


def own_ranker(ranker: object, name: str | None) -> tuple[str, Ranker]:
    """The name of the ranker in results, and the ranker.

    Raises:
        InputError: if it is not callable and has no `rank` method.
    """
    named = name or getattr(ranker, "name", None) or getattr(ranker, "__name__", None) or type(ranker).__name__
    named = "own" if named == "<lambda>" else str(named)
    if isinstance(ranker, Ranker):
        return named, ranker
    if callable(ranker):
        return named, FunctionRanker(ranker, named)
    raise InputError(
        f"an object of type {type(ranker).__name__} is not a ranker: give a name, an artifact, a program, a function "
        "of (history, candidates), or an object with rank(case)"
    )
