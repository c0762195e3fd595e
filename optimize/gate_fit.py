"""Fit of a gate on recorded scores, cross-validated over users; asks no model.

A more complex rule has to pay for itself. One weight for all takes the place of the prior alone where the dev users
make it likelier than not that MAR adds something (`_adds`). Weights by ranges of a signal must be clearly above one
weight on users that they were not fitted on, by more than one standard error. The choice of ranges is checked, too:
where choosing in this way is not above one weight on users that the choice was not made on, it is made without ranges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from scipy.special import logsumexp

from evaluate.protocol.cases import Cases
from evaluate.runs.journal import read_journal
from evaluate.stats.intervals import Difference, paired_difference
from optimize.fusion_fit import TRIED_WEIGHTS
from optimize.likelihood import ListScores, log_likelihoods, mean_deviations
from optimize.objective import UserScore
from programs.gate import Deviations, Gate, GateSignals, SignalName, recorded_scores
from programs.runtime.atomic import write_atomically
from programs.runtime.errors import InputError

LEAST_DEV_USERS = 20
"""Fewest users that a gate is fitted on."""

_FOLDS = 5
_AS_ALL = 10
"""Users that behave like all, counted in every range: its weight shrinks to the one that is best for all. So many users
are at least on each side of a cut."""

_SIGNALS: tuple[SignalName, ...] = ("history", "cold", "margin", "entropy")
_STEPS = 21
"""Margins of dev users that a gate keeps."""

LogLikelihoods = NDArray[np.float64]
"""Log-likelihoods of every row's target at every tried weight, in nats, shape (rows, weights)."""


class FittedGate(BaseModel):
    """A gate, and what it gains on users that it was not fitted on.

    Attributes:
        gate: The rule; fitted on all users.
        users: Number of users.
        in_range: Number of users in each range of the gate.
        floor: Mean log-likelihood of a target by the prior alone, in nats.
        gain: Of the whole procedure, over the prior alone: every user is ranked with the gate that is chosen and fitted
            on the other folds.
        over_one_weight: Likewise, over one weight for all, which is fitted in the same way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    gate: Gate
    users: int
    in_range: tuple[int, ...]
    floor: float
    gain: Difference
    over_one_weight: Difference

    @property
    def lines(self) -> list[str]:
        """The fit in words."""
        gate = self.gate
        lines = []
        for place, (weight, users) in enumerate(zip(gate.weights, self.in_range, strict=True)):
            lines.append(f"{gate.range_named(place)}: fusion weight {weight:g} ({users} dev users)")
        if gate.deviations is not None:
            mar, prior = gate.deviations.mar, gate.deviations.prior
            lines.append(f"all lists: MAR's scores divided by {mar:.3g}, the prior's by {prior:.3g}")
        for name, found in (("the prior alone", self.gain), ("one weight for all", self.over_one_weight)):
            lines.append(
                f"targets likelier than by {name}, out of fold: {found.mean:+.4f} nats "
                f"[{found.low:+.4f}, {found.high:+.4f}], n={found.n}"
            )
        return lines

    def save(self, path: Path) -> None:
        """Write the file that `mllm3rec evaluate --gate` reads."""
        write_atomically(path, self.model_dump_json(indent=2).encode() + b"\n")


def fit_gate(values: LogLikelihoods, signals: Sequence[GateSignals], users: Sequence[str]) -> FittedGate:
    """Choose and fit a gate: ranges of one signal, one weight for all, or the prior alone.

    Args:
        values: Log-likelihood of each row's target at each of `TRIED_WEIGHTS`, in nats, shape (rows, weights); that at
            weight 0 is the prior's.
        signals: Of each row.
        users: User of each row; all rows of a user are in one fold.

    Raises:
        InputError: if there are fewer than `LEAST_DEV_USERS` users.
    """
    names = list(dict.fromkeys(users))
    if len(names) < LEAST_DEV_USERS:
        raise InputError(f"{len(names)} users: a gate needs at least {LEAST_DEV_USERS} dev users to be fitted on")
    data = _Rows(values, signals, _owners(users))
    gate = _chosen(data)
    gated, single = (_out_of_fold(data, choose) for choose in (_chosen, _one_weight))
    floor, chosen, for_all = (data.by_user(found) for found in (values[:, 0], gated, single))
    steps = np.linspace(0, 1, _STEPS)
    margins = np.quantile(data.by_user(np.array([one.margin for one in signals])), steps)
    if gate.signal is not None and chosen.mean() <= for_all.mean():
        gate = _without_ranges(data)
    found = [gate.range_of(one) for one in signals]
    ranges = [{user for user, own in zip(users, found, strict=True) if own == n} for n in range(len(gate.weights))]
    return FittedGate(
        gate=gate.model_copy(update={"margins": tuple(margins.tolist())}),
        users=len(names),
        in_range=tuple(map(len, ranges)),
        floor=float(floor.mean()),
        gain=_difference(names, chosen, floor),
        over_one_weight=_difference(names, chosen, for_all),
    )


def _difference(users: Sequence[str], mine: LogLikelihoods, theirs: LogLikelihoods) -> Difference:
    a, b = (dict(zip(users, found.tolist(), strict=True)) for found in (mine, theirs))
    return paired_difference(a, b, seed=0)


class _Rows:
    """Rows of users with the log-likelihoods of their targets at every weight, and their signals."""

    def __init__(self, values: LogLikelihoods, signals: Sequence[GateSignals], owner: NDArray[np.intp]) -> None:
        self.values = values
        self.signals = signals
        self.owner = owner

    @property
    def each(self) -> float:
        """Mean number of rows of a user: one for each draw of labels."""
        return len(self.owner) / len(np.unique(self.owner))

    def some(self, inside: NDArray[np.bool_]) -> _Rows:
        return _Rows(self.values[inside], [self.signals[int(i)] for i in np.flatnonzero(inside)], self.owner[inside])

    @property
    def fold(self) -> NDArray[np.intp]:
        """Number of the fold of each row, by the order of the users."""
        place: NDArray[np.intp] = np.unique(self.owner, return_inverse=True)[1] % _FOLDS
        return place

    def by_user(self, found: LogLikelihoods) -> LogLikelihoods:
        """Mean over the rows of each user."""
        return _by_user(self.owner, found)

    def at(self, gate: Gate) -> LogLikelihoods:
        """Log-likelihood of each row with the weight that a gate gives it."""
        columns = [TRIED_WEIGHTS.index(gate.weight(one)) for one in self.signals]
        return self.values[np.arange(len(self.values)), columns]


def _out_of_fold(rows: _Rows, choose: Callable[[_Rows], Gate]) -> LogLikelihoods:
    out = np.empty(len(rows.values))
    fold = rows.fold
    for number in range(_FOLDS):
        inside = fold == number
        out[inside] = rows.some(inside).at(choose(rows.some(~inside)))
    return out


def _chosen(rows: _Rows) -> Gate:
    """The simplest rule that no more complex one clearly beats."""
    best = _without_ranges(rows)
    reached = _out_of_fold(rows, _one_weight) if any(best.weights) else rows.values[:, 0]
    tried = {name: _out_of_fold(rows, partial(_ranges, name=name)) for name in _SIGNALS if len(_cuts(rows, name))}
    name = max(tried, key=lambda one: tried[one].mean(), default=None)
    if name is not None and _clearly(rows.owner, tried[name] - reached):
        best = _ranges(rows, name)
    return best


def _without_ranges(rows: _Rows) -> Gate:
    return _one_weight(rows) if _adds(rows) else Gate(weights=(0.0,))


def _adds(rows: _Rows) -> bool:
    """Whether MAR more likely adds something than not, by a Bayes factor above 1.

    Before the users are seen, both are equally likely, and so are all weights above 0.
    """
    total = np.array([rows.by_user(rows.values[:, place]).sum() for place in range(rows.values.shape[1])])
    return bool(logsumexp(total[1:]) - np.log(len(total) - 1) > total[0])


def _clearly(owner: NDArray[np.intp], gain: LogLikelihoods) -> bool:
    """Whether the mean gain is above zero by more than one standard error over users."""
    own = _by_user(owner, gain)
    return bool(own.mean() > own.std(ddof=1) / np.sqrt(len(own)))


def _one_weight(rows: _Rows) -> Gate:
    return Gate(weights=(TRIED_WEIGHTS[_first_best(rows.values.mean(axis=0))],))


def _ranges(rows: _Rows, name: SignalName) -> Gate:
    """A weight below and one above the median of a signal."""
    cuts = _cuts(rows, name)
    gate = Gate(signal=name if cuts else None, cuts=cuts, weights=(0.0,) * (len(cuts) + 1))
    places = np.array([-1 if (own := gate.range_of(one)) is None else own for one in rows.signals])
    for_all = rows.values.mean(axis=0)
    weights = []
    for place in range(len(gate.weights)):
        own = rows.values[places == place]
        as_all = _AS_ALL * rows.each
        shrunk = (own.sum(axis=0) + as_all * for_all) / (len(own) + as_all)
        weights.append(TRIED_WEIGHTS[_first_best(shrunk)])
    return gate.model_copy(update={"weights": tuple(weights)})


def _cuts(rows: _Rows, name: SignalName) -> tuple[float, ...]:
    """The median of a signal; empty if there are too few users on one side of it."""
    known = np.array([value for one in rows.signals if (value := getattr(one, name)) is not None], dtype=float)
    if not len(known):
        return ()
    cut = float(np.median(known))
    above = int((known > cut).sum())
    return (cut,) if min(above, len(known) - above) >= _AS_ALL * rows.each else ()


def _first_best(means: LogLikelihoods) -> int:
    """Index of the best weight; among equals the smallest."""
    return int(np.flatnonzero(means >= means.max() - 1e-9)[0])


def fit_on_run(cases: Cases, directory: Path) -> FittedGate:
    """Fit a gate on a finished run of a program on dev users.

    Raises:
        InputError: if the cases are not of dev users, the run ranked others, or its rows have no scores of MAR.
    """
    if cases.protocol.part != "dev":
        raise InputError(
            f"these cases are of part {cases.protocol.part!r}, but a gate is fitted on dev users only, so that test "
            "users stay unseen; draw cases with `--part dev`"
        )
    manifest, rows = read_journal(directory)
    if manifest.cases_sha256 != cases.sha256:
        raise InputError(f"{directory}: ranked other cases than these")
    if manifest.dataset_sha256 not in ("", cases.protocol.dataset_sha256):
        raise InputError(f"{directory}: ranked with other data than that of these cases")
    given = manifest.configuration.get("head")
    head = given if isinstance(given, int) else None
    owned = {event.item_id for events in cases.training.values() for event in events}
    lists, signals, users = [], [], []
    for case in cases:
        row = rows.get(case.user_id)
        if row is None or not row.scored:
            continue
        if not {"prior", "mar"} <= row.scores.keys() or case.target is None:
            raise InputError(f"{directory}: has no scores of MAR; give the run of a program that asked about all users")
        mar, prior = recorded_scores(row, head), row.scores["prior"]
        lists.append(ListScores.of(case, [None if np.isnan(score) else score for score in mar.tolist()], prior, head))
        signals.append(GateSignals.of(case, prior, owned, mar))
        users.append(case.user_id)
    if not users:
        raise InputError(f"{directory}: no user has been ranked yet")
    return fit_on_lists(lists, signals, users)


def fit_on_scores(scores: Sequence[UserScore]) -> FittedGate | None:
    """Fit a gate on the users of a compile; None if they are too few, or scores are of an older compile."""
    known = [(one, one.signals) for one in scores if one.signals is not None]
    if len(known) < len(scores) or len({one.user_id for one in scores}) < LEAST_DEV_USERS:
        return None
    lists = [one.lists for one in scores]
    if not any(lists):
        return None
    return fit_on_lists(lists, [signals for _, signals in known], [one.user_id for one in scores])


def fit_on_lists(
    lists: Sequence[ListScores | None], signals: Sequence[GateSignals], users: Sequence[str]
) -> FittedGate:
    """Fit a gate by the log-likelihood of the targets.

    The scores of all lists are divided by the same deviations where that makes the targets likelier than each list's
    own do. The gain is then that of the gate for these deviations.

    Args:
        lists: The scores of each row; None where no weight changes the target's place.
        signals, users: As for `fit_gate`.

    Raises:
        InputError: as `fit_gate`.
    """
    common = mean_deviations(lists)
    if common is None or not _all_alike_is_better(lists, common):
        return fit_gate(log_likelihoods(lists, TRIED_WEIGHTS), signals, users)
    over = log_likelihoods([None if one is None else one.over(common) for one in lists], TRIED_WEIGHTS)
    fitted = fit_gate(over, signals, users)
    if not any(fitted.gate.weights):
        return fitted
    return fitted.model_copy(update={"gate": fitted.gate.model_copy(update={"deviations": common})})


def _all_alike_is_better(lists: Sequence[ListScores | None], common: Deviations) -> bool:
    """Whether the targets are likelier with the same deviations for all lists, each way with its best weight.

    Both ways have as many fitted numbers, so the likelihood itself decides.
    """
    known = [one for one in lists if one is not None]
    best = [
        log_likelihoods(way, TRIED_WEIGHTS).mean(axis=0).max() for way in (known, [one.over(common) for one in known])
    ]
    return bool(best[1] > best[0])


def _by_user(owner: NDArray[np.intp], found: LogLikelihoods) -> LogLikelihoods:
    _, place = np.unique(owner, return_inverse=True)
    mean: LogLikelihoods = np.bincount(place, found) / np.bincount(place)
    return mean


def _owners(users: Sequence[str]) -> NDArray[np.intp]:
    names = list(dict.fromkeys(users))
    place = {name: number for number, name in enumerate(names)}
    return np.array([place[user] for user in users])
