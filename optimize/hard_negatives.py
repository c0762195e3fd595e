"""Hard negatives: half of a training list's negatives come from the target's own category."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from programs.prior.scorers import Training
from signatures.rows import Case, seed_of
from signatures.types import Item

_LEVELS = 3
"""Levels of the category path that hard negatives share with the target."""


def with_hard_negatives(cases: Sequence[Case], training: Training, items: Mapping[str, Item], seed: int) -> list[Case]:
    """Replace negatives by items of the target's category; lists keep their length and the target its place.

    Without them a reader learns to tell departments apart, and nothing else.

    Args:
        training: Items that its users have are never their negatives; only items in it are drawn.
        seed: Decides which negatives go and which come, list by list.
    """
    by_category: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for item in sorted({event.item_id for events in training.values() for event in events} & items.keys()):
        by_category[items[item].category[:_LEVELS]].append(item)
    harder = []
    for case in cases:
        assert case.target is not None  # noqa: S101 - training lists have one
        category = items[case.target].category[:_LEVELS] if case.target in items else ()
        known = {*case.candidates, *(event.item_id for event in training.get(case.user_id, ()))}
        pool = [item for item in by_category[category] if item not in known] if category else []
        rng = np.random.default_rng(seed_of("hard negatives", seed, case.user_id))
        places = [place for place, item in enumerate(case.candidates) if item != case.target]
        count = min(len(places) // 2, len(pool))
        candidates = list(case.candidates)
        chosen = rng.permutation(len(pool))[:count].tolist()
        for place, number in zip(rng.permutation(places)[:count].tolist(), chosen, strict=True):
            candidates[place] = pool[number]
        harder.append(case.model_copy(update={"candidates": tuple(candidates)}))
    return harder
