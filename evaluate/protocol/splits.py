"""Splits of a dataset into held-out targets and training data: warm, item cold-start, user cold-start and by time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evaluate.data.dataset import Dataset
from evaluate.protocol.protocol import EvaluationProtocol, held_out, positive_of
from programs.prior.scorers import Training, histories_of
from programs.runtime.errors import InputError, quoted
from signatures.rows import seed_of
from signatures.types import Interaction

Sequences = Mapping[str, tuple[Interaction, ...]]


@dataclass(frozen=True)
class HeldOut:
    """History (oldest first) and target of an evaluated user."""

    history: tuple[Interaction, ...]
    target: str


@dataclass(frozen=True)
class Split:
    """A dataset, split by a protocol.

    Attributes:
        held_out: All users who can be evaluated, dev and test.
        training: Training data of priors and baselines: interactions by user, oldest first.
        cold_items: Positives of item cold-start, absent from the training data. Empty in other settings.
    """

    held_out: Mapping[str, HeldOut]
    training: Training
    cold_items: frozenset[str] = frozenset()

    @property
    def histories(self) -> dict[str, tuple[str, ...]]:
        """Item ids of the training data by user, oldest first."""
        return histories_of(self.training)


def split_dataset(dataset: Dataset, protocol: EvaluationProtocol) -> Split:
    """Split a dataset; users, part, negatives and seed of the protocol are irrelevant here.

    Raises:
        InputError: if the setting needs timestamps and the data has none.
    """
    if protocol.setting == "item-cold":
        split = _item_cold(dataset, protocol)
    elif protocol.setting == "user-cold":
        split = _user_cold(dataset, protocol)
    elif protocol.setting == "time":
        split = split_at_date(dataset.sequences, _date_of(dataset, protocol), protocol)
    else:
        split = _warm(dataset.sequences, protocol)
    if protocol.last is None:
        return split
    cut = {user: HeldOut(own.history[-protocol.last :], own.target) for user, own in split.held_out.items()}
    return Split(cut, split.training, split.cold_items)


def _warm(sequences: Sequences, protocol: EvaluationProtocol) -> Split:
    """For every user the target and the interactions before it; whole sequences of users without a valid target."""
    targets, training = {}, {}
    for user, sequence in sequences.items():
        index = held_out(sequence, protocol.target)
        training[user] = sequence[:index]
        if index is not None:
            targets[user] = HeldOut(sequence[:index], sequence[index].item_id)
    return Split(targets, training)


def _item_cold(dataset: Dataset, protocol: EvaluationProtocol) -> Split:
    return split_off_items(dataset.sequences, rarest(dataset.sequences, protocol.cold_share), protocol)


def split_off_items(sequences: Sequences, cold: frozenset[str], protocol: EvaluationProtocol) -> Split:
    """Item cold-start with these cold items: their users' targets, and the sequences of all others."""
    targets = {}
    for user, sequence in sequences.items():
        index = held_out(sequence, protocol.target)
        if protocol.cold_positive == "any":
            index = _last_cold(sequence, cold, liked=protocol.target != "last")
        if index is not None and sequence[index].item_id in cold:
            targets[user] = HeldOut(sequence[:index], sequence[index].item_id)
    training = {
        user: sequence for user, sequence in sequences.items() if cold.isdisjoint(event.item_id for event in sequence)
    }
    return Split(targets, training, cold)


def rarest(sequences: Sequences, share: float) -> frozenset[str]:
    """The share of the items with the fewest interactions, rounded down but at least one; ties by a hash."""
    counts = Counter(event.item_id for sequence in sequences.values() for event in sequence)
    rarest = sorted(counts, key=lambda item: (counts[item], seed_of("cold", item)))
    return frozenset(rarest[: max(1, int(share * len(rarest)))])


def _last_cold(sequence: tuple[Interaction, ...], cold: frozenset[str], liked: bool) -> int | None:
    for index in range(len(sequence) - 1, 0, -1):
        event = sequence[index]
        if event.item_id in cold and (not liked or event.liked):
            return index
    return None


def _user_cold(dataset: Dataset, protocol: EvaluationProtocol) -> Split:
    start = window_start(_times(dataset, "user cold-start"), protocol.cold_share)
    return split_at_window(dataset.sequences, start, protocol)


def _times(dataset: Dataset, purpose: str) -> NDArray[np.int64]:
    times = dataset.interactions["timestamp"]
    if times.isna().any():
        raise InputError(
            f"dataset {quoted(dataset.name)}: {int(times.isna().sum())} interactions have no timestamp; {purpose} "
            "sorts all records by time"
        )
    return times.to_numpy(dtype=np.int64)


def dated(dataset: Dataset, protocol: EvaluationProtocol) -> EvaluationProtocol:
    """The protocol with the date of the setting time, found in the data where none is given; others as they are.

    Raises:
        InputError: if the data has no timestamps.
    """
    if protocol.setting != "time":
        return protocol
    return protocol.model_copy(update={"since": _date_of(dataset, protocol)})


def _date_of(dataset: Dataset, protocol: EvaluationProtocol) -> int:
    times = _times(dataset, "the setting time")
    return window_start(times, protocol.cold_share) if protocol.since is None else protocol.since


def split_at_date(sequences: Sequences, since: int, protocol: EvaluationProtocol) -> Split:
    """Setting time: what happened from `since` (unix seconds) on is test; histories and training data end before it."""
    targets: dict[str, HeldOut] = {}
    training: dict[str, tuple[Interaction, ...]] = {}
    for user, sequence in sequences.items():
        before = tuple(event for event in sequence if (event.timestamp or 0) < since)
        if not before:
            continue
        training[user] = before
        later = tuple(event for event in sequence if (event.timestamp or 0) >= since)
        index = positive_of(later, protocol.target)
        if index is not None:
            targets[user] = HeldOut(before, later[index].item_id)
    return Split(targets, training)


def window_start(times: NDArray[np.int64], share: float) -> int:
    """First moment of the window with the latest share of the records.

    With timestamps of whole days many records share that moment: all of them belong to the window.
    """
    ordered = np.sort(times)
    return int(ordered[min(len(ordered) - 1, int(np.ceil((1 - share) * len(ordered))))])


def split_at_window(sequences: Sequences, start: int, protocol: EvaluationProtocol) -> Split:
    """User cold-start with the window from `start` (Unix seconds) on."""
    targets: dict[str, HeldOut] = {}
    training: dict[str, tuple[Interaction, ...]] = {}
    for user, sequence in sequences.items():
        inside = tuple(event for event in sequence if (event.timestamp or 0) >= start)
        if not 1 <= len(inside) < protocol.cold_below:
            training[user] = tuple(event for event in sequence if (event.timestamp or 0) < start)
            continue
        known = inside if protocol.cold_history == "window" else sequence
        index = held_out(known, protocol.target)
        if index is not None and (known[index].timestamp or 0) >= start:
            history = known[:index][-(protocol.cold_below - 1) :]
            targets[user] = HeldOut(history, known[index].item_id)
    return Split(targets, {user: history for user, history in training.items() if history})
