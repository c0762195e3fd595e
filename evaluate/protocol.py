"""Which interaction is held out, who belongs to dev and to test, and what may be learnt from (docs/protocol.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from evaluate.datasets.dataset import Dataset
from programs.ranker import seed_of
from signatures.types import Interaction

Target = Literal["last-liked", "highest", "last"]
"""Policy that picks the positive; the paper says both "last rated above 3" (the default here) and "highest rated"."""

Part = Literal["dev", "test"]
"""Dev users are for tuning and demonstrations, test users are looked at once per artifact."""

LIKED_ABOVE = 3.0
"""A rating has to be above this to count as liked (paper, section 4.1)."""


def held_out(sequence: Sequence[Interaction], target: Target) -> int | None:
    """Index of the positive in a user's interactions, or None where the user cannot be evaluated.

    Args:
        sequence: A user's interactions, oldest first.
        target: `last-liked`: the last one rated above 3, where an interaction without a rating counts as liked.
            `highest`: the one with the highest rating, if that is above 3, and the latest among equals.
            `last`: the last one, whatever its rating.

    Returns:
        An index of at least 1, since a history of one interaction is needed; None where the policy finds
        nothing, or finds the first interaction.

    >>> rated = [Interaction(item_id=i, rating=r) for i, r in [("a", 4), ("b", 5), ("c", 4), ("d", 2)]]
    >>> held_out(rated, "last-liked"), held_out(rated, "highest"), held_out(rated, "last")
    (2, 1, 3)
    >>> held_out(rated[:1], "last") is None
    True
    """
    if target == "last-liked":
        liked = [i for i, event in enumerate(sequence) if event.rating is None or event.rating > LIKED_ABOVE]
        index = liked[-1] if liked else 0
    elif target == "highest":
        rated = [(e.rating, i) for i, e in enumerate(sequence) if e.rating is not None and e.rating > LIKED_ABOVE]
        index = max(rated)[1] if rated else 0
    else:
        index = len(sequence) - 1
    return index if index > 0 else None


def part_of(user_id: str) -> Part:
    """The half a user belongs to: a hash of the id alone, so no seed, sample size or policy moves anyone.

    >>> part_of("A1B2C3") == part_of("A1B2C3")
    True
    """
    return "dev" if seed_of("part", user_id) % 2 == 0 else "test"


def training_histories(dataset: Dataset, target: Target) -> dict[str, tuple[str, ...]]:
    """All that priors and baselines may be fitted on: nothing at or after any user's target.

    Returns:
        For every user the item ids strictly before the held-out target, oldest first; the whole sequence
        of users who have no valid target and hence are never evaluated.
    """
    return {
        user: tuple(event.item_id for event in sequence[: held_out(sequence, target)])
        for user, sequence in dataset.sequences.items()
    }
