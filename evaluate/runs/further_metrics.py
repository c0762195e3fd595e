"""Further metrics of a run at any cutoffs: HR, NDCG, MRR and MAP, and metrics of the lists beside their hits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluate.data.dataset import Dataset
from evaluate.protocol.cases import Cases
from evaluate.runs.run_metrics import ranks_of
from evaluate.stats.intervals import Estimate, bootstrap_mean
from evaluate.stats.list_metrics import UNBOUNDED, Background, Coverage, coverage, list_metrics
from evaluate.stats.metrics import per_user, reciprocal_ranks
from programs.prior.scorers import Popularity, Training, histories_of
from programs.runtime.errors import InputError
from signatures.rows import Ranking


@dataclass(frozen=True)
class FurtherMetrics:
    """Metrics at chosen cutoffs, by names such as `MRR@3/30`.

    Attributes:
        means: Means over users, with intervals. Where a metric is not defined for a user, the user is left out of it.
        coverage: Coverage of the catalogue by all lists together.
    """

    means: dict[str, Estimate] = field(default_factory=dict)
    coverage: dict[str, Coverage] = field(default_factory=dict)


def further_metrics(
    cases: Cases, rows: Mapping[str, Ranking], ks: Sequence[int], background: Background | None = None
) -> FurtherMetrics:
    """Compute the metrics of the rows that are scored.

    Args:
        cases: All cases of the run; their data is read, for popularity and categories.
        rows: Journal rows by user id.
        ks: Cutoffs; none for no metrics.
        background: Of the cases, if it is known; None to make it.

    Raises:
        InputError: if a cutoff is below 1 or above the length of the lists.
    """
    check_cutoffs(ks, len(cases[0].candidates))
    ranks = ranks_of(cases.cases, rows)
    if not ks or not ranks:
        return FurtherMetrics()
    size = len(cases[0].candidates)
    orders = {user: rows[user].order for user in ranks}
    shown = {case.user_id: case.item_ids for case in cases if case.user_id in ranks}
    frame = per_user(ranks, ks)
    frame = frame.join(reciprocal_ranks(ranks, ks)).join(
        list_metrics(orders, shown, background or background_of(cases.dataset, cases.training), ks)
    )
    means = {
        f"{name}/{size}": bootstrap_mean(values.to_numpy(), seed=0, shares=name.partition("@")[0] not in UNBOUNDED)
        for name in sorted(frame.columns, key=lambda name: int(name.rpartition("@")[2]))
        if len(values := frame[name].dropna())
    }
    catalogue = set(cases.dataset.interactions["item_id"])
    covered = {f"coverage@{k}/{size}": coverage(orders, catalogue, k) for k in ks}
    return FurtherMetrics(means, covered)


def background_of(data: Dataset, training: Training) -> Background:
    """Popularity in training data, and the categories of all items."""
    histories = histories_of(training)
    categories = {
        item.item_id: frozenset(level for path in item.categories for level in path)
        for item in data.items.values()
        if item.categories
    }
    sets = {user: frozenset(history) for user, history in histories.items()}
    return Background(sets, Popularity.fit(histories).counts, categories)


def check_cutoffs(ks: Sequence[int], size: int) -> None:
    """Check cutoffs before anything is ranked.

    Raises:
        InputError: naming the first that lists of `size` candidates do not have, or that is given twice.
    """
    for k in ks:
        if not 1 <= k <= size:
            raise InputError(f"k {k}: the lists have {size} candidates; give cutoffs from 1 to {size}")
        if list(ks).count(k) > 1:
            raise InputError(f"k {k}: is given twice; give each cutoff once")
