"""A small search per baseline: its grid, fitted and ranked on dev users, every figure kept."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from evaluate.baselines import TRAINED
from evaluate.baselines.baseline import Baseline, TrainingData
from evaluate.protocol.protocol import part_of
from evaluate.stats.metrics import ndcg, rank_of
from programs.runtime.errors import InputError
from signatures.rows import Case

METRIC, CUTOFF = "NDCG@10", 10
"""What decides between settings."""


class Tuned(BaseModel):
    """What a search tried and found; its JSON is what a study records.

    Attributes:
        ranker: Name of the baseline.
        seed: Seed of every fit.
        users: Dev users ranked.
        tried: In the order of the grid, the settings with their mean `NDCG@10` (0 to 1) and the `seconds` that fit and
            ranking took by the clock.
        settings: Those of the best; of equals, the earlier.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ranker: str
    seed: int
    users: int = Field(ge=1)
    tried: tuple[dict[str, Any], ...] = Field(min_length=1)
    settings: dict[str, Any]

    @property
    def chosen(self) -> Baseline:
        """The best settings, ready to fit."""
        return TRAINED[self.ranker].model_validate(self.settings)


def tune(
    baseline: type[Baseline],
    material: TrainingData,
    cases: Sequence[Case],
    seed: int,
    grid: Sequence[Baseline] | None = None,
) -> Tuned:
    """Fit and rank every point of a grid.

    Args:
        material: What fits may see.
        cases: Dev users with targets.
        seed: Of every fit.
        grid: Settings of that baseline, by default its own.

    Raises:
        InputError: if the grid is empty, there are no cases, or one has no target or is a test user's.
        MissingExtraError: if the baseline's library is not installed.
    """
    grid = baseline.grid() if grid is None else grid
    _check(baseline.name, grid, cases)
    tried: list[dict[str, Any]] = []
    for point in grid:
        started = time.monotonic()
        value = _mean_ndcg(point, material, cases, seed)
        seconds = round(time.monotonic() - started, 3)
        tried.append(point.model_dump(mode="json") | {METRIC: value, "seconds": seconds})
    best = max(range(len(grid)), key=lambda place: tried[place][METRIC])
    settings = grid[best].model_dump(mode="json")
    return Tuned(ranker=baseline.name, seed=seed, users=len(cases), tried=tuple(tried), settings=settings)


def _mean_ndcg(point: Baseline, material: TrainingData, cases: Sequence[Case], seed: int) -> float:
    ranker = point.fit(material, seed)
    ranks = [rank_of(ranker.rank(case.blinded()).order, str(case.target)) for case in cases]
    return sum(ndcg(rank, CUTOFF) for rank in ranks) / len(ranks)


def _check(name: str, grid: Sequence[Baseline], cases: Sequence[Case]) -> None:
    if not grid or not cases:
        raise InputError(f"tuning '{name}' needs settings and dev cases: {len(grid)} settings, {len(cases)} cases")
    for case in cases:
        if part_of(case.user_id) != "dev":
            raise InputError(f"tuning '{name}': user {case.user_id!r} is a test user; give cases of dev users only")
        if case.target is None:
            raise InputError(f"tuning '{name}': the case of user {case.user_id!r} has no target")
