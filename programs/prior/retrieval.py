"""Candidate retrieval: the items of a catalogue that score best for a history (A_u of eq. 9)."""

from __future__ import annotations

from collections.abc import Sequence

from programs.prior.scorers import Scorer
from programs.ranker import order_by_score
from programs.runtime.errors import InputError
from signatures.rows import seed_of


def retrieve(
    scorer: Scorer, history: Sequence[str], catalogue: Sequence[str], k: int, exclude_seen: bool = True
) -> tuple[str, ...]:
    """The k items of a catalogue that score best for a history.

    Args:
        scorer: Usually the `Prior`.
        history: Item ids, oldest first.
        catalogue: Distinct item ids.
        k: At least 1.
        exclude_seen: Leave out the items of the history.

    Returns:
        Up to k ids, best first; fewer if the catalogue has fewer. Ties are broken at random, with a seed of the
        history.

    Raises:
        InputError: k is below 1.

    >>> from programs.prior.scorers import Popularity
    >>> retrieve(Popularity({"a": 3, "b": 2, "c": 1}), history=["a"], catalogue=["a", "b", "c"], k=1)
    ('b',)
    """
    if k < 1:
        raise InputError(f"cannot retrieve {k} items: ask for at least 1")
    seen = set(history) if exclude_seen else set()
    eligible = [item for item in catalogue if item not in seen]
    scores = scorer.scores(history, eligible)
    return order_by_score(eligible, scores.tolist(), tie_seed=seed_of("retrieve", *history))[:k]
