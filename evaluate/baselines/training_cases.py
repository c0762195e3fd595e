"""Training cases for learned rankers: the protocol of the evaluation, applied again to its training data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from evaluate.protocol.negatives import NegativeSampler
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.protocol.splits import split_sequences
from programs.prior.scorers import Popularity, Training, histories_of
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


EARLIER_WINDOWS = 3
"""User cold-start: number of earlier windows to learn from."""


@dataclass(frozen=True)
class TrainingStep:
    """Lists to learn from, and the training data that their features are fitted on, without the lists' targets."""

    before: Training
    cases: list[Case]


def training_steps(
    training: Training, protocol: EvaluationProtocol | None, negatives: int, seed: int
) -> list[TrainingStep]:
    """Lists of the shape of the evaluation's, from its training data alone.

    Warm: the last item of every history. Item cold-start: the rarest items of the training data, with negatives drawn
    as the protocol draws them. User cold-start: the last `EARLIER_WINDOWS` windows before the evaluation's, each
    with the data before it.

    Args:
        protocol: That of the evaluation; None counts as warm.
        negatives: Sampled items per list.
        seed: Decides negatives and their order.
    """
    if protocol is None or protocol.setting == "warm":
        return [TrainingStep(shortened(training), training_cases(training, negatives, seed))]
    # Every user of a cold item teaches, not only those whose last item is one: there are few of these.
    wider = protocol.model_copy(update={"cold_positive": "any", "last": None})
    steps = []
    for number in range(EARLIER_WINDOWS if protocol.setting == "user-cold" else 1):
        split = split_sequences({user: tuple(events) for user, events in training.items()}, wider)
        targets = {user: (own.history, own.target) for user, own in split.held_out.items()}
        steps.append(
            TrainingStep(split.training, _drawn(training, split.training, targets, wider, negatives, seed + number))
        )
        training = split.training
        if not any(training.values()):
            break
    return [step for step in steps if step.cases and any(step.before.values())]


def _drawn(
    training: Training,
    before: Training,
    targets: Mapping[str, tuple[Sequence[Interaction], str]],
    protocol: EvaluationProtocol,
    negatives: int,
    seed: int,
) -> list[Case]:
    pool = sorted({event.item_id for events in training.values() for event in events})
    sampler = NegativeSampler(pool, Popularity.fit(histories_of(before)).counts, protocol.sampling, negatives)
    cases = []
    for user, (history, target) in targets.items():
        rng = np.random.default_rng(seed_of("training", seed, user))
        candidates = sampler.draw(rng, target, {event.item_id for event in training[user]})
        candidates.insert(int(rng.integers(len(candidates) + 1)), target)
        cases.append(Case(user_id=user, history=tuple(history), candidates=tuple(candidates), target=target))
    return cases
