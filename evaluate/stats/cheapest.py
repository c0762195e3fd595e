"""Recommendation of the cheapest mix whose loss against the best is acceptable (non-inferiority)."""

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
_SEED = 0
_CELLS_PER_BATCH = 4_000_000
"""Resamples times users that are drawn at once, 8 bytes each."""


class MixLoss(BaseModel):
    """Loss of a mix against the best one, in the grid's metric.

    Attributes:
        mean: Best mean minus this mean, 0 for the best.
        upper: Upper confidence bound of the loss, against the best mix of each bootstrap resample (so that the luck of
            the best is included), with one adverse pseudo-user (rule of three).
        sd: Standard deviation of the per-user loss against the best.
    """

    model_config = ConfigDict(frozen=True)

    mean: float
    upper: float
    sd: float


class CheapestMix(BaseModel):
    """The recommended mix and its reasons.

    Attributes:
        chosen: The cheapest mix whose loss is within the margin at the confidence, or None.
        best: The mix with the highest mean.
        losses: By mix.
        cost: Of each mix, in `unit`; None if unknown.
        unit: `dollars` if every mix has a price, else `seconds`.
        users_needed: Further users after which the cheapest mix with a mean loss within the margin may be accepted;
            None if a mix is chosen.
    """

    model_config = ConfigDict(frozen=True)

    metric: str
    margin: float
    confidence: float
    users: int
    best: str
    chosen: str | None
    losses: dict[str, MixLoss]
    cost: dict[str, float | None]
    unit: str
    users_needed: int | None = None

    def __str__(self) -> str:
        within = f"at most {self.margin:g} of {self.metric} against the best mix, with confidence {self.confidence:g}"
        if self.chosen is not None:
            loss = self.losses[self.chosen]
            return (
                f"{self.chosen} is the cheapest mix that loses {within} "
                f"(loss {loss.mean:.3f}, at most {loss.upper:.3f}; n={self.users})"
            )
        advice = f"about {self.users_needed:,} more users are needed" if self.users_needed else "use another margin"
        return f"not enough users to tell (n={self.users}): no mix is shown to lose {within}; {advice}"


def cheapest_mix(
    values: Mapping[str, pd.Series[float]],
    cost: Mapping[str, float | None],
    unit: str,
    metric: str,
    margin: float,
    confidence: float,
) -> CheapestMix:
    """Choose the cheapest acceptable mix.

    A mix is acceptable if the bootstrap's upper bound of its loss is within the margin; the loss in a resample is the
    best mean in that resample minus the mix's. Mixes of unknown cost are chosen only if no cost is known, by mean.

    Args:
        values: The metric per user, by mix; only users of all mixes count.
        cost: Stand-alone cost of each mix.

    Raises:
        InputError: if there is no mix, or no user with values for all mixes.
    """
    if not values:
        raise InputError("no mix has been run: nothing to recommend")
    frame = pd.DataFrame(values).dropna().sort_index()
    if frame.empty:
        raise InputError("no user was ranked by all mixes: nothing to recommend")
    scores = frame.to_numpy(dtype=float)
    means = scores.mean(axis=0)
    uppers = _uppers(scores, confidence)
    best = int(means.argmax())
    labels = list(frame.columns)
    losses = {
        label: MixLoss(
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


def _uppers(scores: NDArray[np.float64], confidence: float) -> NDArray[np.float64]:
    """Upper bound of the loss of each mix, with one adverse pseudo-user on whom its loss is 1.

    Without this user the bootstrap of equal values would have no spread, but ten equal users are compatible with a loss
    of a quarter (rule of three).

    Args:
        scores: Users by mixes.
    """
    rng = np.random.default_rng(_SEED)
    n, mixes = len(scores) + 1, scores.shape[1]
    at_once = max(1, _CELLS_PER_BATCH // n)  # resamples of all users at once may not fit in memory
    losses = []
    for start in range(0, _RESAMPLES, at_once):
        picks = rng.multinomial(n, np.full(n, 1 / n), size=min(at_once, _RESAMPLES - start)) / n
        means = picks[:, :-1] @ scores
        few = np.empty_like(means)
        for mix in range(mixes):
            with_adverse = means + picks[:, -1:]
            with_adverse[:, mix] = means[:, mix]
            few[:, mix] = with_adverse.max(axis=1) - means[:, mix]
        losses.append(few)
    bounds: NDArray[np.float64] = np.quantile(np.concatenate(losses), confidence, axis=0)
    return bounds


def _order(label: str, cost: Mapping[str, float | None], losses: Mapping[str, MixLoss]) -> tuple[bool, float, float]:
    price = cost.get(label)
    return price is None, price or 0.0, losses[label].mean


def _needed(
    losses: Mapping[str, MixLoss], cost: Mapping[str, float | None], margin: float, confidence: float, n: int
) -> int | None:
    """Users beyond n after which the cheapest promising mix would be acceptable, if its loss stayed the same."""
    promising = [label for label, loss in losses.items() if loss.mean < margin]
    if not promising:
        return None
    label = min(promising, key=lambda name: _order(name, cost, losses))
    loss = losses[label]
    quantile = float(stats.norm.ppf(confidence))
    # The bound's excess over the mean shrinks with the root of n; used for the best mix, whose sd is 0.
    spread = max(loss.sd * quantile, (loss.upper - loss.mean) * math.sqrt(n))
    return max(1, math.ceil((spread / (margin - loss.mean)) ** 2) - n)
