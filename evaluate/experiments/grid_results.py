"""Results of a comparison: accuracy with tests, costs, the effect of each role's model, and the recommended mix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict

from evaluate.experiments.grid import Grid, Mix
from evaluate.runs.costs import MixCost
from evaluate.runs.run_metrics import (
    count_unparsable,
    is_readable,
    score_sources,
    unparsable_share,
    unreadable_warning,
)
from evaluate.stats.cheapest import CheapestMix, cheapest_mix
from evaluate.stats.intervals import Estimate, bootstrap_mean
from evaluate.stats.metrics import Bounds, bounds, per_user
from evaluate.stats.significance import PairedComparison, compare_to
from programs.lm.roles import ROLE_NAMES, RoleName
from signatures.rows import Ranking

LabelT = TypeVar("LabelT", str, int)


@dataclass(frozen=True)
class MixRun:
    """The run of one mix.

    Attributes:
        ranks: 1-based rank of the target by ranked user.
        rows: Journal rows by user.
        prior_ranks: 1-based rank of the target by the prior alone, by ranked user.
        unresolved: Number of cases without a scored row.
        stopped: Why the run was stopped, or None.
    """

    mix: Mix
    ranks: Mapping[str, int]
    rows: Mapping[str, Ranking]
    cost: MixCost
    unresolved: int = 0
    stopped: str | None = None
    prior_ranks: Mapping[str, int] = field(default_factory=dict)

    @property
    def unparsable_users(self) -> int:
        """Number of users without a parsable answer; ranked by the prior."""
        return count_unparsable(self.rows.values())

    @property
    def comparable(self) -> bool:
        """Whether the mix may be recommended: every case has a row, and enough answers were readable."""
        return bool(self.ranks) and not self.unresolved and is_readable(self.unparsable_users, len(self.ranks))


class MixRow(BaseModel):
    """Results of one mix.

    Attributes:
        metrics: By name, without the list size.
        against: Differences to the reference mix, Holm-corrected over the grid; empty for the reference itself.
        unparsable: Share of answers that could not be parsed.
        unparsable_users: Number of users without a parsable answer; ranked by the prior.
        stored: Share of answers that were cache hits.
        score_sources: Number of users by how MAR's scores were computed.
    """

    model_config = ConfigDict(frozen=True)

    label: str
    models: dict[str, str]
    users: int
    unresolved: int
    stopped: str | None
    metrics: dict[str, Estimate]
    bounds: dict[str, Bounds]
    against: dict[str, PairedComparison]
    unparsable: float
    unparsable_users: int
    stored: float
    score_sources: dict[str, int]
    cost: MixCost

    @property
    def readable(self) -> bool:
        """Whether enough users have a readable answer for the figures to be about the models."""
        return is_readable(self.unparsable_users, self.users)

    @property
    def warning(self) -> str | None:
        """Warning to show before the figures if users have no readable answer; else None."""
        return unreadable_warning(self.unparsable_users, self.users)


class RoleEffect(BaseModel):
    """Effect of changing the model of one role, everything else being equal.

    Attributes:
        role: The changed role.
        before, after: Names of backends.
        mixes: Number of pairs of mixes that differ in this only; the effect is their mean.
        gain: In the grid's metric per user, after minus before.
        usd_per_user: After minus before per user, without MOTE; None if a price is unknown.
        usd_per_product: After minus before per item; None if a price is unknown.
        seconds: After minus before for all users together, stand-alone.
    """

    model_config = ConfigDict(frozen=True)

    role: RoleName
    before: str
    after: str
    mixes: int
    metric: str
    gain: Estimate
    usd_per_user: float | None
    usd_per_product: float | None
    seconds: float


class GridResults(BaseModel):
    """Results of a comparison.

    Attributes:
        prior: Metrics of the prior alone, by name; empty without a prior.
        prior_users: Number of users that the prior ranked.
    """

    model_config = ConfigDict(frozen=True)

    reference: str
    list_size: int
    rows: tuple[MixRow, ...]
    effects: tuple[RoleEffect, ...]
    recommendation: CheapestMix | None
    front: tuple[str, ...]
    prior: dict[str, Estimate] = {}
    prior_users: int = 0


def grid_results(grid: Grid, runs: Sequence[MixRun], list_size: int) -> GridResults:
    """Results of the runs.

    Mixes without a ranked user are listed, but not compared, and unparsable ones are never recommended.
    """
    frames = {run.mix.label: per_user(run.ranks) for run in runs if run.ranks}
    reference = grid.reference_label
    against: Mapping[str, Mapping[str, PairedComparison]] = {}
    if reference in frames:
        others = {label: frame for label, frame in frames.items() if label != reference}
        against = compare_to(frames[reference], others, seed=0) if others else {}
    complete = [run for run in runs if run.comparable]
    costs, unit = _comparable([run.cost for run in complete])
    price = {run.mix.label: cost for run, cost in zip(complete, costs, strict=True)}
    recommendation = None
    if complete:
        values = {run.mix.label: frames[run.mix.label][grid.metric] for run in complete}
        recommendation = cheapest_mix(values, price, unit, grid.metric, grid.margin, grid.confidence)
    # All runs have the same prior, so take the run with most ranked users.
    prior = max((run.prior_ranks for run in runs), key=len, default={})
    means = {label: float(frames[label][grid.metric].mean()) for label in price}
    return GridResults(
        reference=reference,
        list_size=list_size,
        rows=tuple(_row(grid, run, frames.get(run.mix.label), against.get(run.mix.label, {})) for run in runs),
        effects=tuple(_effects(grid, complete, frames)),
        recommendation=recommendation,
        front=tuple(front_of(means, price)),
        prior=_estimates(per_user(prior)) if prior else {},
        prior_users=len(prior),
    )


def objectives(grid: Grid, run: MixRun) -> tuple[float, float] | None:
    """Quality and stand-alone cost of a mix, the objectives of a search; None if users are unresolved.

    Cost is in dollars if the price is known, else in seconds. If only some models of a grid have a known price, give
    the others a price per hour.
    """
    if not run.comparable:
        return None
    quality = float(per_user(run.ranks)[grid.metric].mean())
    return quality, run.cost.seconds if run.cost.usd is None else run.cost.usd


def front_of(quality: Mapping[LabelT, float], cost: Mapping[LabelT, float | None]) -> list[LabelT]:
    """Pareto front, cheapest first: the labels that no other label beats in both quality and cost.

    Labels of unknown cost are left out.

    >>> front_of({"a": 0.5, "b": 0.4, "c": 0.6}, {"a": 1.0, "b": 2.0, "c": 3.0})
    ['a', 'c']
    """
    known = {label: price for label, price in cost.items() if price is not None}
    out: list[LabelT] = []
    for label in sorted(known, key=lambda name: (known[name], -quality[name])):
        if not out or quality[label] > quality[out[-1]]:
            out.append(label)
    return out


def _comparable(costs: Sequence[MixCost]) -> tuple[list[float | None], str]:
    """Stand-alone costs in dollars if all are known, else all in seconds."""
    dollars = [cost.usd for cost in costs]
    if any(usd is None for usd in dollars):
        return [cost.seconds for cost in costs], "seconds"
    return list(dollars), "dollars"


def _row(grid: Grid, run: MixRun, frame: pd.DataFrame | None, against: Mapping[str, PairedComparison]) -> MixRow:
    scored = [row for row in run.rows.values() if row.scored]
    answers = sum(role.calls for role in run.cost.roles)
    stored = sum(role.stored for role in run.cost.roles)
    empty = frame if frame is not None else per_user({})
    limits = bounds(empty, run.unresolved, negatives=1) if run.unresolved else {}
    return MixRow(
        label=run.mix.label,
        models={role: grid.backends[getattr(run.mix, role)].model for role in ROLE_NAMES},
        users=len(run.ranks),
        unresolved=run.unresolved,
        stopped=run.stopped,
        metrics={} if frame is None else _estimates(frame),
        bounds={name.split("/")[0]: limit for name, limit in limits.items()},
        against=dict(against),
        unparsable=unparsable_share(scored, answers),
        unparsable_users=run.unparsable_users,
        stored=stored / answers if answers else 0.0,
        score_sources=score_sources(scored),
        cost=run.cost,
    )


def _estimates(frame: pd.DataFrame) -> dict[str, Estimate]:
    return {name: bootstrap_mean(frame[name].to_numpy(), 0) for name in frame.columns}


def _effects(grid: Grid, runs: Sequence[MixRun], frames: Mapping[str, pd.DataFrame]) -> list[RoleEffect]:
    by_mix = {run.mix: run for run in runs}
    out = []
    for role in ROLE_NAMES:
        names = list(dict.fromkeys(getattr(run.mix, role) for run in runs))
        for i, before in enumerate(names):
            for after in names[i + 1 :]:
                changed = [(run, _changed(grid, run.mix, role, before, after)) for run in runs]
                pairs = [(run, by_mix[other]) for run, other in changed if other in by_mix]
                if pairs:
                    out.append(_effect(grid, role, before, after, pairs, frames))
    return out


def _changed(grid: Grid, mix: Mix, role: RoleName, before: str, after: str) -> Mix | None:
    """The mix with `after` in place of `before` in a role; None if the role has another backend.

    If the grid does not vary the judge, the judge is MAR's backend and changes with it.
    """
    if getattr(mix, role) != before:
        return None
    values = {name: getattr(mix, name) for name in ROLE_NAMES} | {role: after}
    if role == "mar" and not grid.judge:
        values["judge"] = after
    return Mix(**values)


def _effect(
    grid: Grid,
    role: RoleName,
    before: str,
    after: str,
    pairs: Sequence[tuple[MixRun, MixRun]],
    frames: Mapping[str, pd.DataFrame],
) -> RoleEffect:
    gains = [frames[b.mix.label][grid.metric] - frames[a.mix.label][grid.metric] for a, b in pairs]
    per_user_gain = pd.concat(gains, axis=1).mean(axis=1).dropna()
    return RoleEffect(
        role=role,
        before=before,
        after=after,
        mixes=len(pairs),
        metric=grid.metric,
        gain=bootstrap_mean(per_user_gain.to_numpy(), 0, shares=False),
        usd_per_user=_mean([_minus(b.cost.per_user, a.cost.per_user) for a, b in pairs]),
        usd_per_product=_mean([_minus(b.cost.per_product, a.cost.per_product) for a, b in pairs]),
        seconds=float(np.mean([b.cost.seconds - a.cost.seconds for a, b in pairs])),
    )


def _minus(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None
