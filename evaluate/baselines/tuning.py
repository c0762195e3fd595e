"""Grid search for a baseline's settings on dev users."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from evaluate.baselines import TRAINED
from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.baselines.fitting import UNKEPT, Fitting
from evaluate.baselines.versions import settings_class
from evaluate.protocol.protocol import part_of
from evaluate.stats.metrics import ndcg, rank_of
from programs.ranker import BatchRanker, Ranker
from programs.runtime.errors import InputError, quoted
from signatures.rows import Case

METRIC, CUTOFF = "NDCG@10", 10
"""The metric that decides."""


class Tuned(BaseModel):
    """Result of a grid search; studies record it as JSON.

    Attributes:
        ranker: Name of the baseline.
        seed: Training seed of every fit.
        users: Number of dev users ranked.
        tried: The settings in the order of the grid, with their mean `NDCG@10` (0 to 1) and the wall-clock `seconds` of
            fit and ranking.
        settings: The best settings; the earlier of equals.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranker: str
    seed: int
    users: int = Field(ge=1)
    tried: tuple[dict[str, Any], ...] = Field(min_length=1)
    settings: dict[str, Any]

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if self.ranker not in TRAINED:
            raise ValueError(f"there is no trained baseline {quoted(self.ranker)}")
        _ = self.chosen
        return self

    @property
    def chosen(self) -> Baseline:
        """The best settings, ready to fit."""
        return settings_class(self.ranker, self.settings).model_validate(self.settings)


def tune(
    baseline: type[Baseline],
    training: TrainingData,
    cases: Sequence[Case],
    seed: int,
    grid: Sequence[Baseline] | None = None,
    fitting: Fitting = UNKEPT,
) -> Tuned:
    """Fit every point of a grid and evaluate it on dev users.

    Args:
        training: Training data.
        cases: Dev users with targets.
        seed: Training seed of every fit.
        grid: Settings to try; None for the baseline's own grid.
        fitting: Where the fits are kept.

    Raises:
        InputError: if the grid is empty, there are no cases, or a case has no target or is a test user's.
        MissingExtraError: if the baseline's library is not installed.
    """
    grid = baseline.grid() if grid is None else grid
    _check(baseline.name, grid, cases)
    tried: list[dict[str, Any]] = []
    for point in grid:
        started = time.monotonic()
        value = _mean_ndcg(point.fit(training, seed, fitting), cases)
        seconds = round(time.monotonic() - started, 3)
        tried.append(point.model_dump(mode="json") | {METRIC: value, "seconds": seconds})
    best = max(range(len(grid)), key=lambda index: tried[index][METRIC])
    settings = grid[best].model_dump(mode="json")
    return Tuned(ranker=baseline.name, seed=seed, users=len(cases), tried=tuple(tried), settings=settings)


def _mean_ndcg(ranker: Ranker, cases: Sequence[Case]) -> float:
    blinded = [case.blinded() for case in cases]
    rankings = ranker.rank_many(blinded) if isinstance(ranker, BatchRanker) else [ranker.rank(case) for case in blinded]
    ranks = [rank_of(ranking.order, str(case.target)) for ranking, case in zip(rankings, cases, strict=True)]
    return sum(ndcg(rank, CUTOFF) for rank in ranks) / len(ranks)


def _check(name: str, grid: Sequence[Baseline], cases: Sequence[Case]) -> None:
    if not grid or not cases:
        raise InputError(f"tuning '{name}' needs settings and dev cases: {len(grid)} settings, {len(cases)} cases")
    for case in cases:
        if part_of(case.user_id) != "dev":
            raise InputError(
                f"tuning '{name}': user {quoted(case.user_id)} is a test user; give cases of dev users only"
            )
        if case.target is None:
            raise InputError(f"tuning '{name}': the case of user {quoted(case.user_id)} has no target")
