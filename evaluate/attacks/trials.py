"""Trials of an attack run: rankings of one user's list with one text attacked, harmlessly edited, or as it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from evaluate.attacks.attack import Attack
from signatures.rows import Case, Ranking, seed_of
from signatures.types import Item

TOP = 5
"""Places that count as the top of a list: victims come from below."""

LEAST_CANDIDATES = TOP + 2
"""In a list of this length there is always an item below the top that is not the target."""

Condition = Literal["clean", "control", "attack"]


def victim_of(case: Case, clean_order: Sequence[str], seed: int) -> str:
    """The item whose text is edited in the list of one user.

    All candidates are put in an order that depends on seed, user and item alone. The victim is the first of them that
    is not the target and that the ranker, without any edit, places below the top `TOP`. So rankers that agree about
    the top have the same victim, and share its traits.

    Args:
        clean_order: The ranker's order of the candidates without any edit, best first; at least `LEAST_CANDIDATES`.

    >>> case = Case(user_id="ann", history=(), candidates=tuple("abcdefgh"), target="h")
    >>> victim_of(case, "abcdefgh", seed=0) in {"f", "g"}
    True
    """
    eligible = [item for item in clean_order[TOP:] if item != case.target]
    return min(eligible, key=lambda item: seed_of("victim", seed, case.user_id, item))


@dataclass(frozen=True)
class Trial:
    """One ranking to be made.

    Attributes:
        ranker: Name of the ranker.
        case: The user's case, with its own user id.
        condition: Whether the victim's text is attacked, has the control edit, or is as the seller wrote it.
        attack: The attack, also of its control; None of the clean ranking.
        victim: Id of the edited item; None of the clean ranking.
    """

    ranker: str
    case: Case
    condition: Condition = "clean"
    attack: Attack | None = None
    victim: str | None = None

    @property
    def id(self) -> str:
        """Its id, which stands for the user id in the journal of an attack run."""
        edit = self.condition if self.attack is None else f"{self.condition}/{self.attack.name}"
        return f"{self.ranker}/{edit}/{self.case.user_id}"

    def item(self, catalogue: Mapping[str, Item]) -> Item | None:
        """The edited item, or None of the clean ranking."""
        if self.attack is None or self.victim is None:
            return None
        item = catalogue[self.victim]
        return self.attack.apply(item) if self.condition == "attack" else self.attack.control(item)


def clean_trials(ranker: str, cases: Sequence[Case]) -> list[Trial]:
    """The rankings without an edit, one per user."""
    return [Trial(ranker, case) for case in cases]


def row_of(trial: Trial, rows: Mapping[str, Ranking]) -> Ranking | None:
    """The scored row of a trial; None if there is none, or if another item was edited when it was made.

    The victim depends on the clean ranking. If that was made anew and the run then ended, edited rows of the earlier
    victim are left. Rows of older versions do not name their victim; they belong to a clean row that does not either.

    Args:
        rows: Journal rows by trial id.
    """
    row = rows.get(trial.id)
    if row is None or not row.scored:
        return None
    if trial.condition == "clean" or row.victim == trial.victim:
        return row
    clean = rows.get(Trial(trial.ranker, trial.case).id)
    return row if row.victim is None and clean is not None and clean.victim is None else None


def edited_trials(
    ranker: str, cases: Sequence[Case], attacks: Sequence[Attack], rows: Mapping[str, Ranking], seed: int
) -> Iterator[Trial]:
    """Two rankings, attack and control, per attack and user whose clean ranking is there, attack by attack.

    Args:
        rows: Journal rows by trial id.
    """
    victims = {}
    for trial in clean_trials(ranker, cases):
        if (row := row_of(trial, rows)) is not None:
            victims[trial.case.user_id] = victim_of(trial.case, row.order, seed)
    for attack in attacks:
        for case in cases:
            if (victim := victims.get(case.user_id)) is not None:
                yield Trial(ranker, case, "attack", attack, victim)
                yield Trial(ranker, case, "control", attack, victim)
