"""Leakage check: no held-out interaction may be in the training data, a shown history or the negatives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from evaluate.data.dataset import Dataset
from evaluate.protocol.protocol import Setting
from programs.prior.scorers import Training, histories_of
from programs.runtime.errors import InputError, quoted
from signatures.rows import Case

_SHOWN = 3


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
) -> list[Leak]:
    """Search for held-out interactions in training data, histories and negatives.

    A user's interactions from the target on must not be in the training data, in the case's history or among the
    negatives. In the cold settings evaluated users must not be in the training data at all, nor the targets of item
    cold-start with any user. Independent of the code that splits the data.

    Args:
        cases: Cases with their targets.
        dataset: The data they were drawn from.
        training: Training data.
    """
    leaks: list[Leak] = []
    histories = histories_of(training)
    training_items = {item for history in histories.values() for item in history} if setting == "item-cold" else set()
    for case in cases:
        sequence = dataset.histories.get(case.user_id, ())
        if case.target is None or case.target not in sequence:
            leaks.append(Leak(case.user_id, f"the target {quoted(case.target)} is not an interaction of the user"))
            continue
        index = len(sequence) - 1 - sequence[::-1].index(case.target)
        before, after = set(sequence[:index]), set(sequence[index:])
        # An item bought before and after the target may be learned from its first purchase.
        hidden = after - before
        if learned := hidden.intersection(histories.get(case.user_id, ())):
            leaks.append(
                Leak(case.user_id, f"the training data has {quoted(min(learned))}, bought at or after the target")
            )
        if shown := hidden.intersection(case.item_ids):
            leaks.append(Leak(case.user_id, f"the history shows {quoted(min(shown))}, bought at or after the target"))
        if own := (before | after).intersection(case.candidates) - {case.target}:
            leaks.append(Leak(case.user_id, f"{quoted(min(own))} is a negative, but the user bought it"))
        if setting != "warm" and case.user_id in histories:
            leaks.append(Leak(case.user_id, f"is in the training data of {setting}"))
        if case.target in training_items:
            leaks.append(Leak(case.user_id, f"the cold item {quoted(case.target)} is in the training data"))
    return leaks


def refuse_leaks(leaks: Sequence[Leak]) -> None:
    """Raise an error if there is a leak.

    Raises:
        InputError: naming the first leaks.
    """
    if leaks:
        shown = "; ".join(map(str, leaks[:_SHOWN]))
        more = f"; and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        raise InputError(f"held-out interactions leak: {shown}{more}")
