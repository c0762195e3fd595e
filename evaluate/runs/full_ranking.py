"""Full-catalogue ranking: ranks of the targets among all items, without sampled negatives."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from evaluate.data.dataset import Dataset
from evaluate.stats.metrics import rank_of
from programs.ranker import Ranker
from signatures.rows import Case


def full_ranking_ranks(
    ranker: Ranker,
    cases: Sequence[Case],
    catalogue: Sequence[str],
    owned: Mapping[str, Collection[str]],
    on_user: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Rank of every user's target among all items that the user does not have before it.

    Args:
        ranker: One without a language model: every list is as long as the catalogue.
        cases: Cases with targets; their sampled candidates are ignored.
        catalogue: Distinct item ids.
        owned: Items of every user before the target, which may be more than the history.
        on_user: Called after every user.

    Returns:
        1-based rank by user id; ties are broken by the user's seed.
    """
    ranks = {}
    for case in cases:
        assert case.target is not None  # noqa: S101 - cases files hold no other
        left_out = set(owned[case.user_id]) - {case.target}
        everything = tuple(item for item in catalogue if item not in left_out)
        whole = Case(user_id=case.user_id, history=case.history, candidates=everything, metadata=case.metadata)
        ranks[case.user_id] = rank_of(ranker.rank(whole).order, case.target)
        on_user()
    return ranks


def owned_before_target(dataset: Dataset, cases: Sequence[Case]) -> dict[str, set[str]]:
    """Items of every user before the target: more than the history if that is cut."""
    owned = {}
    for case in cases:
        items = dataset.histories[case.user_id]
        index = max(i for i, item in enumerate(items) if item == case.target)
        owned[case.user_id] = set(items[:index])
    return owned
