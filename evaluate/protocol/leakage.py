"""Leakage check: no held-out interaction may be in the training data, a shown history or the negatives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from evaluate.data.dataset import Dataset
from evaluate.protocol.protocol import COLD_SETTINGS, Setting, moment_of
from programs.prior.scorers import Training
from programs.runtime.errors import InputError, quoted
from signatures.rows import Case
from signatures.types import Interaction

_SHOWN = 3

_FIELDS = {
    "history": "the history is",
    "candidates": "the candidates are",
    "target": "the target is",
    "metadata": "the metadata are",
}
"""Parts of a case that can differ from the one that is drawn."""


@dataclass(frozen=True)
class Leak:
    """A held-out interaction in a place where it must not be."""

    user_id: str
    problem: str

    def __str__(self) -> str:
        return f"user {quoted(self.user_id)}: {self.problem}"


def find_leaks(
    cases: Sequence[Case],
    dataset: Dataset,
    training: Training,
    setting: Setting = "warm",
    since: int | None = None,
) -> list[Leak]:
    """Search for held-out interactions in training data, histories and negatives.

    Every history of the training data must be some of the interactions of one user of the dataset, in their order; so
    must every history that a case shows, with interactions before the target only. A user's interactions from the
    target on must not be in the training data, in the case's history or among the negatives; in the setting time, those
    from the date on, wherever the target is in the user's order. In the cold settings evaluated users must not be in
    the training data at all, nor the targets of item cold-start with any user, nor interactions of the test window of
    user cold-start. In the setting time no interaction of the training data or of a history may be at or after the
    date, and no target before it. Independent of the code that splits the data.

    Args:
        cases: Cases with their targets.
        dataset: The data they were drawn from.
        training: Training data.
        since: Date of the setting time, in unix seconds.
    """
    leaks = [*_foreign_training(dataset, training), *_across_date(cases, dataset, training, since)]
    if setting == "user-cold":
        leaks += _training_in_window(cases, dataset, training)
    cold = setting == "item-cold"
    training_items = {event.item_id for events in training.values() for event in events} if cold else set()
    border = "the target" if since is None else "the date"
    for case in cases:
        if case.target is None or case.target not in dataset.histories.get(case.user_id, ()):
            leaks.append(Leak(case.user_id, f"the target {quoted(case.target)} is not an interaction of the user"))
            continue
        earlier, later = _around(dataset.sequences[case.user_id], case.target, since)
        before, after = ({event.item_id for event in events} for events in (earlier, later))
        # An item bought before and after the target may be learned from its first purchase.
        hidden = after - before
        if learned := hidden.intersection(event.item_id for event in training.get(case.user_id, ())):
            leaks.append(
                Leak(case.user_id, f"the training data has {quoted(min(learned))}, bought at or after {border}")
            )
        if shown := hidden.intersection(case.item_ids):
            leaks.append(Leak(case.user_id, f"the history shows {quoted(min(shown))}, bought at or after {border}"))
        elif foreign := _first_foreign(case.history, earlier):
            leaks.append(
                Leak(case.user_id, f"the history shows {_told(foreign)}, which the user has not before {border}")
            )
        if own := (before | after).intersection(case.candidates) - {case.target}:
            leaks.append(Leak(case.user_id, f"{quoted(min(own))} is a negative, but the user bought it"))
        if setting in COLD_SETTINGS and case.user_id in training:
            leaks.append(Leak(case.user_id, f"is in the training data of {setting}"))
        if case.target in training_items:
            leaks.append(Leak(case.user_id, f"the cold item {quoted(case.target)} is in the training data"))
    return leaks


def _around(
    sequence: Sequence[Interaction], target: str, since: int | None
) -> tuple[list[Interaction], list[Interaction]]:
    """A user's interactions before the date, and the others; without a date, those before the target, and the rest."""
    if since is not None:
        known = [event.timestamp is not None and event.timestamp < since for event in sequence]
    else:
        index = max(place for place, event in enumerate(sequence) if event.item_id == target)
        known = [place < index for place in range(len(sequence))]
    pairs = list(zip(sequence, known, strict=True))
    return [event for event, yes in pairs if yes], [event for event, yes in pairs if not yes]


def _foreign_training(dataset: Dataset, training: Training) -> Iterator[Leak]:
    """Training data that is not some user's own, such as targets under another user id."""
    for user, events in training.items():
        own = dataset.sequences.get(user)
        if own is None:
            yield Leak(user, "is in the training data, but not a user of the data")
        elif foreign := _first_foreign(events, own):
            yield Leak(user, f"the training data has {_told(foreign)}, which the user has not, or not in this order")


def _first_foreign(events: Sequence[Interaction], own: Sequence[Interaction]) -> Interaction | None:
    """The first event that is not in `own` after the ones before it; None if all are."""
    if tuple(events) == tuple(own[: len(events)]):
        return None
    rest = iter(own)  # `in` moves it on
    return next((event for event in events if event not in rest), None)


def _training_in_window(cases: Sequence[Case], dataset: Dataset, training: Training) -> Iterator[Leak]:
    """Training data of user cold-start that is not older than the first target."""
    targets = {(case.user_id, case.target) for case in cases}
    first = min(
        (
            event.timestamp
            for user, item in targets
            for event in dataset.sequences.get(user, ())
            if event.item_id == item and event.timestamp is not None
        ),
        default=None,
    )
    for user, events in training.items():
        late = next((e for e in events if first is not None and (e.timestamp or 0) >= first), None)
        if late is not None:
            yield Leak(user, f"the training data has {_told(late)}, which is not older than the first target")


def _across_date(cases: Sequence[Case], dataset: Dataset, training: Training, since: int | None) -> Iterator[Leak]:
    """Interactions on the wrong side of the date, if there is one; without a time an interaction may be on either."""
    if since is None:
        return
    date = moment_of(since)
    for where, histories in (
        ("the training data has", training.items()),
        ("the history shows", ((case.user_id, case.history) for case in cases)),
    ):
        for user, events in histories:
            late = next((event for event in events if event.timestamp is None or event.timestamp >= since), None)
            if late is not None:
                yield Leak(user, f"{where} {_told(late)}, which is not before {date}")
    for case in cases:
        times = [event.timestamp for event in dataset.sequences.get(case.user_id, ()) if event.item_id == case.target]
        if any(time is None or time < since for time in times):
            yield Leak(case.user_id, f"the target {quoted(case.target)} is before {date}")


def _told(event: Interaction) -> str:
    return quoted(event.item_id) + ("" if event.timestamp is None else f" of time {event.timestamp}")


def find_changed(cases: Sequence[Case], drawn: Sequence[Case]) -> list[Leak]:
    """Search for lists that data and protocol do not give, such as negatives that were picked.

    Args:
        cases: Cases as they are given.
        drawn: Cases as `draw_lists` draws them from data and protocol.
    """
    if tuple(cases) == tuple(drawn):
        return []
    right = {case.user_id: case for case in drawn}
    leaks = []
    for case in cases:
        expected = right.get(case.user_id)
        if expected is None:
            leaks.append(Leak(case.user_id, "data and protocol give no case of this user; draw the cases again"))
        elif case != expected:
            changed = next(name for name in _FIELDS if getattr(case, name) != getattr(expected, name))
            leaks.append(
                Leak(case.user_id, f"{_FIELDS[changed]} not what data and protocol give; draw the cases again")
            )
    missing = sorted(right.keys() - {case.user_id for case in cases})
    leaks += [Leak(user, "has no case, but data and protocol give one; draw the cases again") for user in missing]
    return leaks or [Leak(cases[0].user_id, "the users are in another order; draw the cases again")]


def refuse_leaks(leaks: Sequence[Leak]) -> None:
    """Raise an error if there is a leak.

    Raises:
        InputError: naming the first leaks.
    """
    if leaks:
        shown = "; ".join(map(str, leaks[:_SHOWN]))
        more = f"; and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        raise InputError(f"held-out interactions leak: {shown}{more}")
