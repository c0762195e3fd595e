"""Warnings about candidate lists: targets that give themselves away, by their title or because nobody has them."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence

from evaluate.data.data_warnings import EXAMPLES, DataWarning
from evaluate.protocol.nobody_first import NOBODY_FIRST, expected_hit_rate, unknown_share
from signatures.rows import Case
from signatures.types import Item

_FIRST = 5

FAR_ABOVE_CHANCE = 0.2
"""Difference of HR@5 to chance from which `nobody-has-it-first` shows that lists give the target away."""


def find_known_titles(cases: Sequence[Case], items: Mapping[str, Item]) -> list[DataWarning]:
    """Search for targets that have the title of another item, which the history shows."""
    found = [case.user_id for case in cases if _title_is_known(case, items)]
    if not found:
        return []
    message = (
        f"{len(found)} of {len(cases):,} targets have the title of another item in the history, like one product "
        "under two ids: content similarity finds them"
    )
    return [DataWarning("same title in history and target", len(found), message, tuple(found[:EXAMPLES]))]


def find_given_away(cases: Sequence[Case], known: Container[str]) -> list[DataWarning]:
    """Search for lists in which the target is the item nobody has, as uniform negatives make them for cold items.

    Args:
        cases: Cases with targets, at least one.
        known: Items with a user in the training data.
    """
    size = len(cases[0].candidates)
    rate = expected_hit_rate(cases, known, _FIRST)
    if rate - min(1.0, _FIRST / size) <= FAR_ABOVE_CHANCE:
        return []
    message = (
        f"{unknown_share(cases, known):.0%} of the candidates have no user in the training data, and the target is "
        f"mostly one of them: {NOBODY_FIRST}, in random order, has HR@{_FIRST}/{size} {rate:.3f}, so figures on these "
        "lists say little about ranking. Draw matched negatives (--sampling matched), and in a small catalogue fewer"
    )
    return [DataWarning("the target is what nobody has", len(cases), message)]


def _title_is_known(case: Case, items: Mapping[str, Item]) -> bool:
    title = _title(items, case.target or "")
    return bool(title) and any(_title(items, item) == title for item in case.item_ids if item != case.target)


def _title(items: Mapping[str, Item], item_id: str) -> str:
    return " ".join(items[item_id].title.casefold().split()) if item_id in items else ""
