"""Rankers given by the caller: any function that scores candidates, or any object with `rank(case)`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evaluate.protocol.cases import Cases
from evaluate.runs.journal import read_journal, stored_manifest
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


def refuse_other_function(ranker: Ranker, cases: Cases, folder: Path) -> None:
    """Refuse to go on with a run of another function.

    A run does not hold its function, so one of its users is ranked again. An object with `rank(case)` may ask a model
    that is paid, so it is taken at its name.

    Raises:
        InputError: if the order of that user is another one.
    """
    if not isinstance(ranker, FunctionRanker) or stored_manifest(folder) is None:
        return
    rows = read_journal(folder)[1]
    ranked = next((case for case in cases if case.user_id in rows and rows[case.user_id].scored), None)
    if ranked is not None and ranker.rank(ranked.blinded()).order != rows[ranked.user_id].order:
        raise InputError(
            f"{folder}: holds a run of another function, or of one whose scores vary: {ranker.name!r} orders the "
            f"candidates of user {ranked.user_id!r} differently now; choose another out"
        )
