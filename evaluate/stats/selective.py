"""Selective calls: quality against cost if only some users are asked about, those where the prior is least sure.

The order of users is fixed before any figure is known, by the prior's margin alone, so nothing is chosen on the
targets that it is judged by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from evaluate.stats.intervals import Difference, Estimate, bootstrap_mean, paired_difference
from programs.runtime.errors import InputError

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of users asked about that tables show."""


@dataclass(frozen=True)
class SelectivePoint:
    """What a share of the users costs and brings.

    Attributes:
        asked: Number of users asked about; the prior alone ranks the others.
        metrics: Mean over all users, by metric.
        gains: Paired differences to asking nobody, by metric.
        calls, usd: Of the users asked about; dollars are None if a price is unknown.
    """

    share: float
    asked: int
    metrics: Mapping[str, Estimate]
    gains: Mapping[str, Difference]
    calls: float
    usd: float | None


def selective_curve(
    alone: pd.DataFrame,
    asked: pd.DataFrame,
    margins: Mapping[str, float],
    calls: Mapping[str, float],
    usd: Mapping[str, float | None],
) -> list[SelectivePoint]:
    """Quality and cost by share of users asked about, those with the smallest margin first.

    Args:
        alone: Metrics of the prior alone, one row per user.
        asked: Metrics of the ranker, likewise.
        margins, calls, usd: By user, for all users of both frames.

    Raises:
        InputError: if the two frames have no user in common.
    """
    users = sorted(alone.index.intersection(asked.index), key=lambda user: (margins[user], user))
    if not users:
        raise InputError("no user was ranked both by the prior and with the model")
    points = []
    for share in SHARES:
        chosen = users[: round(share * len(users))]
        mixed = alone.loc[sorted(users)].copy()
        mixed.loc[chosen] = asked.loc[chosen]
        spent = [usd[user] for user in chosen]
        known = [dollars for dollars in spent if dollars is not None]
        points.append(
            SelectivePoint(
                share=share,
                asked=len(chosen),
                metrics={name: bootstrap_mean(mixed[name].to_numpy(), seed=0) for name in mixed.columns},
                gains={
                    name: paired_difference(mixed[name], alone.loc[mixed.index, name], seed=0) for name in mixed.columns
                },
                calls=sum(calls[user] for user in chosen),
                usd=sum(known) if len(known) == len(spent) else None,
            )
        )
    return points
