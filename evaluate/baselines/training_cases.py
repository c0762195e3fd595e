"""Cases to learn ranking from, out of nothing but what a fit may see: the protocol, one step back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluate.protocol.negatives import NegativeSampler
from programs.prior.scorers import Histories
from signatures.rows import Case, seed_of
from signatures.types import Interaction


def shortened(histories: Histories) -> dict[str, Sequence[str]]:
    """Every history without its last item: what the features of training cases are fitted on.

    Fitted on whole histories, the co-occurrence of a held-out item with the rest of its own history would be among
    what the features are computed from, and a learner would learn to trust it. Like this, a training case is to its
    features what an evaluated case is to the features of whole histories: every user's target is missing.

    >>> shortened({"u": ["a", "b"], "v": ["c"]})
    {'u': ['a']}
    """
    return {user: history[:-1] for user, history in histories.items() if len(history) > 1}


def training_cases(histories: Histories, negatives: int, seed: int) -> list[Case]:
    """One case per history of at least two items: the last one among uniform negatives that the user does not have.

    Users whose last item is a repetition are left out: it would resemble their history by being in it.

    Args:
        negatives: Sampled items per list; fewer where there are fewer.
        seed: Decides negatives and their order. A user's case depends on it, the set of items and the user alone.
    """
    pool = sorted({item for history in histories.values() for item in history})
    sampler = NegativeSampler(pool, {}, "uniform", negatives)
    cases = []
    for user, history in histories.items():
        if len(history) < 2 or history[-1] in history[:-1]:
            continue
        rng = np.random.default_rng(seed_of("training", seed, user))
        candidates = sampler.draw(rng, history[-1], set(history))
        candidates.insert(int(rng.integers(len(candidates) + 1)), history[-1])
        known = tuple(Interaction.model_construct(item_id=item, rating=None, timestamp=None) for item in history[:-1])
        cases.append(Case(user_id=user, history=known, candidates=tuple(candidates), target=history[-1]))
    return cases
