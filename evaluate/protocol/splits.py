"""Who is evaluated on what, and what may be learnt from: warm, item cold-start and user cold-start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from evaluate.data.dataset import Dataset
from evaluate.protocol.protocol import LIKED_ABOVE, EvaluationProtocol, held_out
from programs.runtime.errors import InputError
from signatures.rows import seed_of
from signatures.types import Interaction

Sequences = Mapping[str, tuple[Interaction, ...]]


@dataclass(frozen=True)
class HeldOut:
    """What is known of an evaluated user, oldest first, and what is to be found."""

    history: tuple[Interaction, ...]
    target: str


@dataclass(frozen=True)
class Split:
    """A dataset, divided by a protocol.

    Attributes:
        held_out: Every user who can be evaluated, dev and test users alike.
        training: All that priors and baselines may be fitted on: item ids by user, oldest first.
        cold_items: Positives of item cold-start; in nobody's training history. Empty in other settings.
    """

    held_out: Mapping[str, HeldOut]
    training: Mapping[str, tuple[str, ...]]
    cold_items: frozenset[str] = frozenset()


def split_dataset(dataset: Dataset, protocol: EvaluationProtocol) -> Split:
    """Divide a dataset as the protocol says. Sample sizes, parts, negatives and seeds of a protocol play no role.

    Raises:
        InputError: if the setting needs timestamps and the data has none.
    """
    if protocol.setting == "item-cold":
        found = _item_cold(dataset, protocol)
    elif protocol.setting == "user-cold":
        found = _user_cold(dataset, protocol)
    else:
        found = _warm(dataset.sequences, protocol)
    if protocol.last is None:
        return found
    cut = {user: HeldOut(one.history[-protocol.last :], one.target) for user, one in found.held_out.items()}
    return Split(cut, found.training, found.cold_items)


def _warm(sequences: Sequences, protocol: EvaluationProtocol) -> Split:
    """For every user the target and what came before it; whole sequences of users without a valid target."""
    found, training = {}, {}
    for user, sequence in sequences.items():
        index = held_out(sequence, protocol.target)
        training[user] = _ids(sequence[:index])
        if index is not None:
            found[user] = HeldOut(sequence[:index], sequence[index].item_id)
    return Split(found, training)


def _item_cold(dataset: Dataset, protocol: EvaluationProtocol) -> Split:
    sequences = dataset.sequences
    cold = _rarest(sequences, protocol.cold_share)
    found = {}
    for user, sequence in sequences.items():
        index = held_out(sequence, protocol.target)
        if protocol.cold_positive == "any":
            index = _last_cold(sequence, cold, liked=protocol.target != "last")
        if index is not None and sequence[index].item_id in cold:
            found[user] = HeldOut(sequence[:index], sequence[index].item_id)
    training = {
        user: _ids(sequence)
        for user, sequence in sequences.items()
        if cold.isdisjoint(event.item_id for event in sequence)
    }
    return Split(found, training, cold)


def _rarest(sequences: Sequences, share: float) -> frozenset[str]:
    """That share of the items, rounded down but at least one: those with fewest interactions, ties by a hash."""
    counts = Counter(event.item_id for sequence in sequences.values() for event in sequence)
    rarest = sorted(counts, key=lambda item: (counts[item], seed_of("cold", item)))
    return frozenset(rarest[: max(1, int(share * len(rarest)))])


def _last_cold(sequence: tuple[Interaction, ...], cold: frozenset[str], liked: bool) -> int | None:
    for index in range(len(sequence) - 1, 0, -1):
        event = sequence[index]
        if event.item_id in cold and (not liked or event.rating is None or event.rating > LIKED_ABOVE):
            return index
    return None


def _user_cold(dataset: Dataset, protocol: EvaluationProtocol) -> Split:
    times = dataset.interactions["timestamp"]
    if times.isna().any():
        raise InputError(
            f"dataset {dataset.name!r}: {int(times.isna().sum())} interactions have no timestamp; user cold-start "
            "sorts all records by time"
        )
    ordered = np.sort(times.to_numpy(dtype=np.int64))
    # With day resolution many records share the first moment of the window: all of them belong to it.
    opens = int(ordered[min(len(ordered) - 1, int(np.ceil((1 - protocol.cold_share) * len(ordered))))])
    found: dict[str, HeldOut] = {}
    training: dict[str, tuple[str, ...]] = {}
    for user, sequence in dataset.sequences.items():
        inside = tuple(event for event in sequence if (event.timestamp or 0) >= opens)
        if not 1 <= len(inside) < protocol.cold_below:
            training[user] = _ids(tuple(event for event in sequence if (event.timestamp or 0) < opens))
            continue
        known = inside if protocol.cold_history == "window" else sequence
        index = held_out(known, protocol.target)
        if index is not None and (known[index].timestamp or 0) >= opens:
            history = known[:index][-(protocol.cold_below - 1) :]
            found[user] = HeldOut(history, known[index].item_id)
    return Split(found, {user: history for user, history in training.items() if history})


def _ids(sequence: tuple[Interaction, ...]) -> tuple[str, ...]:
    return tuple(event.item_id for event in sequence)
