"""Training cases for learned rankers: the last item of every training history is held out as target."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from evaluate.protocol.negatives import NegativeSampler
from programs.prior.scorers import Training
from signatures.rows import Case, seed_of
from signatures.types import Interaction


def shortened(training: Training) -> dict[str, Sequence[Interaction]]:
    """Every history without its last item: the data that the features of training cases are fitted on.

    Features fitted on whole histories would contain the co-occurrence of the training target with its own history, and
    the ranker would learn to rely on it. Fitted like this they lack every target, as in an evaluation.

    >>> a, b = Interaction(item_id="a"), Interaction(item_id="b")
    >>> shortened({"u": [a, b], "v": [b]}) == {"u": [a]}
    True
    """
    return {user: events[:-1] for user, events in training.items() if len(events) > 1}


def training_cases(training: Training, negatives: int, seed: int) -> list[Case]:
    """One case per history of at least two items: the last item among uniform negatives outside the history.

    Users whose last item is a repetition are left out: it would be similar to itself.

    Args:
        negatives: Sampled items per list; fewer if the catalogue has fewer.
        seed: Decides negatives and their order. A user's case depends only on the seed, the set of items and the user.
    """
    pool = sorted({event.item_id for events in training.values() for event in events})
    sampler = NegativeSampler(pool, {}, "uniform", negatives)
    cases = []
    for user, events in training.items():
        *before, last = (event.item_id for event in events) if events else ("",)
        if not before or last in before:
            continue
        rng = np.random.default_rng(seed_of("training", seed, user))
        candidates = sampler.draw(rng, last, {*before, last})
        candidates.insert(int(rng.integers(len(candidates) + 1)), last)
        cases.append(Case(user_id=user, history=tuple(events[:-1]), candidates=tuple(candidates), target=last))
    return cases
