"""The cheapest mix that loses too little against the best, or how many users it takes to tell."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy import stats

from programs.runtime.errors import InputError

_RESAMPLES = 4000


class Loss(BaseModel):
    """How much a mix loses against the best one.

    Attributes:
        mean: Best mean minus this mean, 0 for the best.
        upper: Upper bound of the loss at the confidence asked for; the best of each resample counts, so that
            picking the best of many by its luck is in it, and so does one imaginary user who speaks against the mix.
        sd: Standard deviation of the per-user loss against the best.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    upper: float
    sd: float


class CheapestMix(BaseModel):
    """What to deploy.

    Attributes:
        chosen: The cheapest mix whose loss is within the margin with the confidence, or None.
        best: The mix with the highest mean.
        losses: By mix.
        cost: Of each mix, in `unit`; None where unknown.
        unit: `dollars` where every mix has a price, else `seconds`.
        users_needed: Further users after which the cheapest promising mix could be told acceptable; None where one is
            chosen already.
    """

    model_config = ConfigDict(frozen=True)

    metric: str
    margin: float
    confidence: float
    users: int
    best: str
    chosen: str | None
    losses: dict[str, Loss]
    cost: dict[str, float | None]
    unit: str
    users_needed: int | None = None

    def __str__(self) -> str:
        within = (
            f"loses at most {self.margin:g} of {self.metric} against the best mix, with confidence {self.confidence:g}"
        )
        if self.chosen is not None:
            loss = self.losses[self.chosen]
            return (
                f"{self.chosen} is the cheapest mix that {within} (loss {loss.mean:.3f}, at most {loss.upper:.3f}; "
                f"n={self.users})"
            )
        more = f"about {self.users_needed:,} more needed" if self.users_needed else "use another margin"
        return f"not enough users to tell (n={self.users}): no mix surely {within}; {more}"


def cheapest_mix(
    values: Mapping[str, pd.Series[float]],
    cost: Mapping[str, float | None],
    unit: str,
    metric: str,
    margin: float,
    confidence: float,
    seed: int = 0,
) -> CheapestMix:
    """Choose among mixes.

    A mix is acceptable if the bootstrap's upper bound of its loss is within the margin, where the loss of a resample
    is the best mean in that resample minus the mix's. Among the acceptable ones the cheapest known price wins; mixes of
    unknown price are chosen only where no price is known at all, and then the best of them.

    Args:
        values: The metric per user, by mix; only users that every mix has count.
        cost: Of the whole work, as if each mix were run alone.

    Raises:
        InputError: if there is no mix, or no user that all have.
    """
    if not values:
        raise InputError("no mix has been run: nothing to recommend")
    frame = pd.DataFrame(values).dropna().sort_index()
    if frame.empty:
        raise InputError("no user was ranked by all mixes: nothing to recommend")
    scores = frame.to_numpy(dtype=float)
    means = scores.mean(axis=0)
    rng = np.random.default_rng(seed)
    n = len(scores) + 1
    picks = rng.multinomial(n, np.full(n, 1 / n), size=_RESAMPLES) / n
    uppers = [_upper(scores, i, picks, confidence) for i in range(scores.shape[1])]
    best = int(means.argmax())
    labels = list(frame.columns)
    losses = {
        label: Loss(
            mean=float(means[best] - means[i]),
            upper=float(uppers[i]),
            sd=float(np.std(scores[:, best] - scores[:, i], ddof=1)) if len(scores) > 1 else 0.0,
        )
        for i, label in enumerate(labels)
    }
    acceptable = [label for label in labels if losses[label].upper <= margin]
    chosen = min(acceptable, key=lambda label: _order(label, cost, losses), default=None)
    return CheapestMix(
        metric=metric,
        margin=margin,
        confidence=confidence,
        users=len(scores),
        best=labels[best],
        chosen=chosen,
        losses=losses,
        cost={label: cost.get(label) for label in labels},
        unit=unit,
        users_needed=None if chosen is not None else _needed(losses, cost, margin, confidence, len(scores)),
    )


def _upper(scores: NDArray[np.float64], mix: int, picks: NDArray[np.float64], confidence: float) -> float:
    """Upper bound of the loss of one mix, with one imaginary user on whom it loses everything.

    Among few users who all fare alike a bootstrap has nothing to resample and would be sure: ten such users are
    compatible with a loss of a quarter (rule of three).
    """
    against = np.ones(scores.shape[1])
    against[mix] = 0.0
    drawn = picks @ np.vstack([scores, against])
    return float(np.quantile(drawn.max(axis=1) - drawn[:, mix], confidence))


def _order(label: str, cost: Mapping[str, float | None], losses: Mapping[str, Loss]) -> tuple[bool, float, float]:
    price = cost.get(label)
    return price is None, price or 0.0, losses[label].mean


def _needed(
    losses: Mapping[str, Loss], cost: Mapping[str, float | None], margin: float, confidence: float, n: int
) -> int | None:
    """Users beyond n after which the cheapest mix that may be acceptable would be, if its loss stayed as it is."""
    promising = [label for label, loss in losses.items() if loss.mean < margin]
    if not promising:
        return None
    label = min(promising, key=lambda name: _order(name, cost, losses))
    loss = losses[label]
    quantile = float(stats.norm.ppf(confidence))
    # The excess of the bound over the mean shrinks with the root of n; for the best mix there is no sd to go by.
    spread = max(loss.sd * quantile, (loss.upper - loss.mean) * math.sqrt(n))
    return max(1, math.ceil((spread / (margin - loss.mean)) ** 2) - n)
