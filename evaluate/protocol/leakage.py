"""Whether anything that is to be found can be learnt: checked on what fits really get, not on how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evaluate.data.dataset import Dataset
from evaluate.protocol.protocol import Setting
from programs.runtime.errors import InputError
from signatures.rows import Case

_SHOWN = 3


@dataclass(frozen=True)
class Leak:
    """One way in which a held-out interaction reaches something it must not reach."""

    user_id: str
    what: str

    def __str__(self) -> str:
        return f"user {self.user_id!r}: {self.what}"


def find_leaks(
    cases: Sequence[Case],
    dataset: Dataset,
    histories: Mapping[str, Sequence[str]],
    setting: Setting = "warm",
) -> list[Leak]:
    """Look for held-out interactions in what is shown or learnt.

    A user's interactions from the target on may be in no fit, in no history that is shown, and not among the
    negatives. The cold settings also keep evaluated users out of every fit, and item cold-start the targets, whoever
    else bought them. Nothing here uses the code that divided the data.

    Args:
        cases: Cases with their targets.
        dataset: The data they were drawn from.
        histories: What fits get: item ids by user.
    """
    leaks: list[Leak] = []
    learnt_items = {item for history in histories.values() for item in history} if setting == "item-cold" else set()
    for case in cases:
        sequence = [event.item_id for event in dataset.sequences.get(case.user_id, ())]
        if case.target is None or case.target not in sequence:
            leaks.append(Leak(case.user_id, f"the target {case.target!r} is none of the user's interactions"))
            continue
        place = len(sequence) - 1 - sequence[::-1].index(case.target)
        before, after = set(sequence[:place]), set(sequence[place:])
        # An item bought before and after may be learnt from its first purchase.
        hidden = after - before
        if learnt := hidden.intersection(histories.get(case.user_id, ())):
            leaks.append(Leak(case.user_id, f"fits see {min(learnt)!r}, bought at or after the target"))
        if shown := hidden.intersection(event.item_id for event in case.history):
            leaks.append(Leak(case.user_id, f"the history shows {min(shown)!r}, bought at or after the target"))
        if own := (before | after).intersection(case.candidates) - {case.target}:
            leaks.append(Leak(case.user_id, f"{min(own)!r} is a negative, but the user bought it"))
        if setting != "warm" and case.user_id in histories:
            leaks.append(Leak(case.user_id, f"is in the training data of {setting}"))
        if case.target in learnt_items:
            leaks.append(Leak(case.user_id, f"the cold item {case.target!r} is in the training data"))
    return leaks


def refuse_leaks(leaks: Sequence[Leak]) -> None:
    """Raise if there is a leak.

    Raises:
        InputError: naming the first few.
    """
    if leaks:
        shown = "; ".join(map(str, leaks[:_SHOWN]))
        more = f"; and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
        raise InputError(f"held-out interactions leak: {shown}{more}")
