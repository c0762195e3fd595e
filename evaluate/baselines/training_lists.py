"""Training lists of learned rankers, in the shape of the lists to rank: warm, item or user cold-start, or by time.

Each step back holds targets out of the training data as the protocol held targets out of the whole data, and keeps what
the features may be fitted on. So features of training lists lack their targets, as in an evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from evaluate.baselines.baseline import TrainingData
from evaluate.protocol.negatives import NegativeSampler
from evaluate.protocol.protocol import EvaluationProtocol
from evaluate.protocol.splits import (
    HeldOut,
    Sequences,
    Split,
    rarest,
    split_at_date,
    split_at_window,
    split_off_items,
    window_start,
)
from programs.prior.scorers import Popularity, Training, histories_of
from programs.runtime.errors import InputError
from signatures.rows import Case, seed_of
from signatures.types import Interaction

_STEPS = 3
"""Earlier windows, or parts of the rarest items, that cold-start lists are drawn from."""

NO_LAST_ITEM = "no history has two items, but 'learned' needs the last item of each as a training target"


@dataclass(frozen=True)
class StepBack:
    """Training lists, and the part of the training data without their targets, which features are fitted on."""

    training: Training
    cases: tuple[Case, ...]


def steps_back(data: TrainingData, negatives: int, seed: int) -> list[StepBack]:
    """Training lists with targets of the training data, never of evaluated users.

    Warm: the last item of every history. User cold-start: the users of three earlier windows. By time: three earlier
    dates. Item cold-start: the users of the rarest items of the training data, in three parts. All fall back on warm
    lists where the data are too few for any of their own.

    Args:
        negatives: Sampled items per list, as the protocol samples them; fewer if the catalogue has fewer.
        seed: Decides negatives and their order.

    Raises:
        InputError: if no history has two different items.
    """
    sequences = {user: tuple(events) for user, events in data.interactions.items() if events}
    splits = _SPLITS[data.protocol.setting](sequences, data.protocol) if data.protocol else iter(())
    steps = [_drawn(sequences, split, data.protocol, negatives, seed) for split in splits]
    steps = [step for step in steps if step.cases]
    if steps:
        return steps
    last = last_item_lists(sequences, negatives, seed, data.protocol)
    if not last.training:
        raise InputError(NO_LAST_ITEM)
    return [last]


def last_item_lists(
    training: Training, negatives: int, seed: int, protocol: EvaluationProtocol | None = None
) -> StepBack:
    """Warm lists: the last item of every history of at least two, and the histories without it.

    Users whose last item is a repetition have no list: it would be similar to itself. A user's list depends only on
    the seed, the set of items and the user.

    Args:
        negatives: Sampled items per list; fewer if the catalogue has fewer.
        seed: Decides negatives and their order.
        protocol: How negatives are sampled, and how long histories are; None: uniformly, and whole ones.
    """
    sequences = {user: tuple(events) for user, events in training.items() if events}
    return _drawn(sequences, _last_items(sequences), protocol, negatives, seed)


def further_lists(data: TrainingData, shaped: Sequence[Case], count: int, negatives: int, seed: int) -> list[Case]:
    """Lists whose targets are other purchases of the training data, for rankers that read texts.

    Weights of ids have to be fitted without the targets, so that a user gives one list; a reader of texts learns from
    every purchase after a user's first. Histories are as long as those of the lists in the setting's own shape.

    Args:
        shaped: Those lists, see `steps_back`; their targets are not drawn again.
        count: Most lists; fewer if there are not so many purchases.
        negatives, seed: As for `steps_back`.
    """
    sequences = {user: tuple(events) for user, events in data.interactions.items()}
    taken = {(case.user_id, case.target) for case in shaped}
    places = [
        (user, place)
        for user, events in sequences.items()
        for place in _first_places(events)[1:]
        if (user, events[place].item_id) not in taken
    ]
    rng = np.random.default_rng(seed_of("further lists", seed))
    lengths = np.array([len(case.history) for case in shaped] or [1])
    drawer = _Drawer(sequences, sequences, data.protocol, negatives)
    cases = []
    for index in rng.permutation(len(places))[:count].tolist():
        user, place = places[index]
        history = sequences[user][max(0, place - int(rng.choice(lengths))) : place]
        target = sequences[user][place].item_id
        cases.append(drawer.case(user, history, target, seed_of("further list", seed, user, place)))
    return cases


def _first_places(events: Sequence[Interaction]) -> list[int]:
    """Places of the first interaction with each item, ascending."""
    first: dict[str, int] = {}
    for place, event in enumerate(events):
        first.setdefault(event.item_id, place)
    return list(first.values())


def _last_items(sequences: Sequences) -> Split:
    before = {user: events[:-1] for user, events in sequences.items() if len(events) > 1}
    held_out = {user: HeldOut(history, sequences[user][-1].item_id) for user, history in before.items()}
    return Split(held_out, before)


def _warm(sequences: Sequences, protocol: EvaluationProtocol) -> Iterator[Split]:
    yield _last_items(sequences)


def _earlier_windows(sequences: Sequences, protocol: EvaluationProtocol) -> Iterator[Split]:
    return _earlier(sequences, protocol, split_at_window)


def _earlier_dates(sequences: Sequences, protocol: EvaluationProtocol) -> Iterator[Split]:
    return _earlier(sequences, protocol, split_at_date)


def _earlier(
    sequences: Sequences,
    protocol: EvaluationProtocol,
    split_at: Callable[[Sequences, int, EvaluationProtocol], Split],
) -> Iterator[Split]:
    """Splits at the first moment of the latest records, then of the latest of those before, and so on."""
    for _ in range(_STEPS):
        times = np.array([event.timestamp or 0 for events in sequences.values() for event in events], dtype=np.int64)
        if not times.size:
            return
        start = window_start(times, protocol.cold_share)
        split = split_at(sequences, start, protocol)
        if not split.training:
            return
        yield split
        sequences = {
            user: before
            for user, events in sequences.items()
            if (before := tuple(event for event in events if (event.timestamp or 0) < start))
        }


def _rare_items(sequences: Sequences, protocol: EvaluationProtocol) -> Iterator[Split]:
    any_cold = protocol.model_copy(update={"cold_positive": "any"})
    before: frozenset[str] = frozenset()
    for step in range(1, _STEPS + 1):
        share = step * protocol.cold_share
        if share >= 1:
            return
        items = rarest(sequences, share)
        split = split_off_items(sequences, items - before, any_cold)
        before = items
        if split.training:
            yield split


_SPLITS = {"warm": _warm, "user-cold": _earlier_windows, "item-cold": _rare_items, "time": _earlier_dates}


def _drawn(
    sequences: Sequences, split: Split, protocol: EvaluationProtocol | None, negatives: int, seed: int
) -> StepBack:
    """One list per user; those whose target is a repetition are left out: it would be similar to itself."""
    drawer = _Drawer(sequences, split.training, protocol, negatives)
    last = protocol.last if protocol else None
    cases = [
        drawer.case(user, own.history[-last:] if last else own.history, own.target, seed_of("training", seed, user))
        for user, own in split.held_out.items()
        if own.target not in {event.item_id for event in own.history}
    ]
    return StepBack(split.training, tuple(cases))


class _Drawer:
    """Draws the candidates of training lists, as the protocol draws those of the cases.

    Args:
        sequences: Their items are drawn, and a user's own are never negatives.
        counted: Popularity is counted in these.
    """

    def __init__(
        self, sequences: Sequences, counted: Training, protocol: EvaluationProtocol | None, negatives: int
    ) -> None:
        self.sequences = sequences
        pool = sorted({event.item_id for events in sequences.values() for event in events})
        popularity = Popularity.fit(histories_of(counted)).counts
        self.sampler = NegativeSampler(pool, popularity, protocol.sampling if protocol else "uniform", negatives)

    def case(self, user: str, history: Sequence[Interaction], target: str, seed: int) -> Case:
        """One list; its target has a place of its own."""
        rng = np.random.default_rng(seed)
        candidates = self.sampler.draw(rng, target, {event.item_id for event in self.sequences[user]})
        candidates.insert(int(rng.integers(len(candidates) + 1)), target)
        return Case(user_id=user, history=tuple(history), candidates=tuple(candidates), target=target)
