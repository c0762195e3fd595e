"""Variance components of a mean over repeated runs: users, negative draws and training seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from programs.runtime.errors import InputError

VARIANCE_COLUMNS = ("user", "draw", "seed", "value")

_USER, _DRAW, _SEED = 0, 1, 2

_FLOAT_NOISE = 1e-12
"""A spread below this share of the largest value is rounding error."""


class VarianceComponent(BaseModel):
    """Contribution of one source to the variance of the mean.

    Attributes:
        variance: In squared units of the values; 0 or more.
        sd: Its root, in units of the values: the spread of the mean if only this source is drawn again.
        share: Share of the total, 0 to 1; None if the mean does not vary.
        clipped: Whether the estimate was negative and was set to 0.
    """

    model_config = ConfigDict(frozen=True)

    variance: float = Field(ge=0)
    sd: float = Field(ge=0)
    share: float | None = Field(ge=0, le=1)
    clipped: bool


class VarianceSplit(BaseModel):
    """Variance of the overall mean, by source.

    Attributes:
        mean: Mean over all cells.
        users: From drawing other users.
        draws: From drawing other negatives for the same users; None (unknown, not 0) with a single draw.
        seeds: From other training or sampling seeds; None with a single seed.
        joint: From the interaction of draws and seeds, noise included; None unless there are several of both.
        variance: Sum of the known components.
        sd: Its root: the standard error of the mean.
        n_users: Number of users with a value in every cell; only they count.
        n_draws: Number of draws; components of 2 or 3 draws or seeds are rough estimates.
        n_seeds: Number of seeds.
        left_out: Number of users without a value in some cell.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    users: VarianceComponent
    draws: VarianceComponent | None
    seeds: VarianceComponent | None
    joint: VarianceComponent | None
    variance: float = Field(ge=0)
    sd: float = Field(ge=0)
    n_users: int = Field(ge=2)
    n_draws: int = Field(ge=1)
    n_seeds: int = Field(ge=1)
    left_out: int = Field(ge=0)


def split_variance(records: pd.DataFrame | Sequence[Mapping[str, object]]) -> VarianceSplit:
    """Split the variance of a mean over users x draws x seeds by the method of moments.

    The model is the crossed random-effects one, with all interactions: value = mean + user + draw + seed + user:draw +
    user:seed + draw:seed + rest. Mean squares are set equal to their expectations (Searle, Casella and McCulloch,
    *Variance Components*, chapter 4). With MS of U users, D draws and S seeds divided by UDS, as contributions to the
    variance of the mean,

        users = MS(user) - MS(user:draw) - MS(user:seed) + MS(rest)
        draws = MS(draw) - MS(draw:seed)
        seeds = MS(seed) - MS(draw:seed)
        joint = MS(draw:seed)

    so that user:draw counts as draws (the protocol draws negatives for each user independently) and user:seed as seeds.
    With one draw or one seed its terms are part of `users`.

    Args:
        records: One row per cell, with the columns user, draw, seed and value; other columns are ignored.

    Raises:
        InputError: if a column is missing, a value is not a finite number, a cell is repeated, or fewer than two users
            have a value in every cell.

    >>> split = split_variance([
    ...     {"user": user, "draw": draw, "seed": 0, "value": value}
    ...     for user, values in {"u1": (0.0, 0.5), "u2": (0.5, 1.0)}.items() for draw, value in enumerate(values)
    ... ])
    >>> split.mean, split.users.variance, split.draws.variance, split.seeds
    (0.5, 0.0625, 0.0625, None)
    """
    cube, left_out = _cube(records)
    ms_joint = _over_mean(cube, _DRAW, _SEED)
    raw: dict[str, float | None] = {
        "users": _over_mean(cube, _USER)
        - _over_mean(cube, _USER, _DRAW)
        - _over_mean(cube, _USER, _SEED)
        + _over_mean(cube, _USER, _DRAW, _SEED),
        "draws": _over_mean(cube, _DRAW) - ms_joint if cube.shape[_DRAW] > 1 else None,
        "seeds": _over_mean(cube, _SEED) - ms_joint if cube.shape[_SEED] > 1 else None,
        "joint": ms_joint if min(cube.shape[_DRAW], cube.shape[_SEED]) > 1 else None,
    }
    total = sum(max(0.0, estimate) for estimate in raw.values() if estimate is not None)
    return VarianceSplit.model_validate(
        {name: None if estimate is None else _part(estimate, total) for name, estimate in raw.items()}
        | {"mean": float(cube.mean()), "variance": total, "sd": math.sqrt(total), "left_out": left_out}
        | dict(zip(("n_users", "n_draws", "n_seeds"), cube.shape, strict=True))
    )


def _cube(records: pd.DataFrame | Sequence[Mapping[str, object]]) -> tuple[NDArray[np.float64], int]:
    """Values of shape (users, draws, seeds), in sorted order, and the number of users that are not in all cells."""
    frame = records if isinstance(records, pd.DataFrame) else pd.DataFrame(list(records))
    missing = [name for name in VARIANCE_COLUMNS if name not in frame.columns]
    if missing:
        raise InputError(f"column {missing[0]!r} is missing: give {', '.join(VARIANCE_COLUMNS)}")
    values = pd.to_numeric(frame["value"], errors="coerce").to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not finite numbers")
    keys = frame[["user", "draw", "seed"]]
    twice = keys.duplicated()
    if twice.any():
        user, draw, seed = keys[twice].iloc[0]
        raise InputError(f"user {user!r}, draw {draw}, seed {seed} is repeated; give one value per cell")
    indices, levels = zip(*(pd.factorize(keys[name], sort=True) for name in keys.columns), strict=True)
    cube = np.full([len(level) for level in levels], np.nan)
    cube[indices] = values
    complete = ~np.isnan(cube).any(axis=(_DRAW, _SEED))
    if complete.sum() < 2:
        raise InputError(
            f"{int(complete.sum())} of {len(cube)} users have a value in all {cube.shape[_DRAW]} draws x "
            f"{cube.shape[_SEED]} seeds, at least 2 are needed: run every seed on every draw for the same users"
        )
    return cube[complete], int((~complete).sum())


def _over_mean(cube: NDArray[np.float64], *axes: int) -> float:
    """Mean square of the main effect or interaction of some axes, divided by the cells of the cube.

    0 if an axis has one level.
    """
    effect = cube.mean(axis=tuple(axis for axis in range(cube.ndim) if axis not in axes), keepdims=True)
    for axis in axes:
        effect = effect - effect.mean(axis=axis, keepdims=True)
    freedom = math.prod(cube.shape[axis] - 1 for axis in axes)
    # Each cell of the effect stands for cube.size / effect.size values, which the division cancels.
    part = float((effect**2).sum()) / freedom / effect.size if freedom else 0.0
    return part if math.sqrt(part) > _FLOAT_NOISE * float(np.abs(cube).max()) else 0.0


def _part(estimate: float, total: float) -> VarianceComponent:
    variance = max(0.0, estimate)
    share = variance / total if total else None
    return VarianceComponent(variance=variance, sd=math.sqrt(variance), share=share, clipped=estimate < 0)
