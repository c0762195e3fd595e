"""Training cases for learned rankers: the last item of every training history is held out as target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluate.protocol.negatives import NegativeSampler
from programs.prior.scorers import Histories
from signatures.rows import Case, seed_of
from signatures.types import Interaction


def shortened(histories: Histories) -> dict[str, Sequence[str]]:
    """Every history without its last item: the data that the features of training cases are fitted on.

    Features fitted on whole histories would contain the co-occurrence of the training target with its own history, and
    the ranker would learn to rely on it. Fitted like this they lack every target, as in an evaluation.

    >>> shortened({"u": ["a", "b"], "v": ["c"]})
    {'u': ['a']}
    """
    return {user: history[:-1] for user, history in histories.items() if len(history) > 1}


def training_cases(histories: Histories, negatives: int, seed: int) -> list[Case]:
    """One case per history of at least two items: the last item among uniform negatives outside the history.

    Users whose last item is a repetition are left out: it would be similar to itself.

    Args:
        negatives: Sampled items per list; fewer if the catalogue has fewer.
        seed: Decides negatives and their order. A user's case depends only on the seed, the set of items and the user.
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
