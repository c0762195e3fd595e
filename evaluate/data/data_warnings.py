"""Warnings about a dataset: what makes targets easy to find, and may be natural or planted; days read as seconds.

A leak is refused; these are counted and shown, because natural data has some of each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil

from evaluate.data.dataset import Dataset
from evaluate.data.records.fields import reads_as_a_day
from signatures.types import Item

NEARLY_EQUAL = 0.8
"""Share of the items of either that two users have in common: five purchases, and the same five with one more."""

FEWEST_IN_COMMON = 4
"""Shorter histories are equal by chance too often."""

MOST_COMPARED = 100
"""Other users that one user is compared with, those with most rare items in common."""

EXAMPLES = 3
"""Ids given with a warning."""


@dataclass(frozen=True)
class DataWarning:
    """Something in the data that makes targets easy to find, or is not meant as it is read.

    Attributes:
        kind: A short name of what it is.
        count: How often it was found.
        message: A sentence for people, without ids.
        examples: Ids of the first users or items concerned.
    """

    kind: str
    count: int
    message: str
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.message + (f" (such as {', '.join(map(repr, self.examples))})" if self.examples else "")


def find_data_warnings(dataset: Dataset) -> list[DataWarning]:
    """Search for second accounts, user ids in the items' texts, and dates that cannot be meant as they are read."""
    found: list[DataWarning] = []
    users = len(dataset.histories)
    if twins := users_with_a_twin(dataset.histories):
        message = (
            f"{len(twins)} of {users:,} users have nearly the same items as another user, like second accounts of "
            "one person: item-kNN and whatever is trained finds the targets of one with the other"
        )
        found.append(DataWarning("second accounts", len(twins), message, tuple(twins[:EXAMPLES])))
    named = _items_that_name_their_users(dataset.histories, dataset.items)
    if named:
        message = (
            f"{len(named)} items hold the id of a user who has them in title, description or keywords: whatever reads "
            "texts finds the target"
        )
        found.append(DataWarning("user ids in texts", len(named), message, tuple(named[:EXAMPLES])))
    backwards = [
        user
        for user, events in dataset.sequences.items()
        if any(b < a for a, b in pairwise(event.timestamp for event in events if event.timestamp is not None))
    ]
    if backwards:
        message = (
            f"{len(backwards)} of {users:,} users have interactions whose dates contradict their positions: the "
            "target is not their latest one, so fits may know what came after it"
        )
        found.append(DataWarning("dates against positions", len(backwards), message, tuple(backwards[:EXAMPLES])))
    times = [
        event.timestamp for events in dataset.sequences.values() for event in events if event.timestamp is not None
    ]
    if times and all(map(reads_as_a_day, times)):
        message = (
            f"all {len(times):,} timestamps read as days, such as {times[0]}, but numbers are taken as Unix seconds: "
            "write days as 2018-07-07"
        )
        found.append(DataWarning("days as numbers", len(times), message))
    return found


def users_with_a_twin(histories: Mapping[str, Sequence[str]]) -> list[str]:
    """Users who have nearly the same items as another user.

    Of two users with a share t of their items in common (intersection over union), one of the rarest
    n - ceil(t n) + 1 items of each is the same. So only users who share one of these few are compared.

    Returns:
        User ids, sorted.

    >>> users_with_a_twin({"ann": "abcde", "bob": "abcdef", "cid": "abxyz", "dot": "abc"})
    ['ann', 'bob']
    """
    counts = Counter(item for history in histories.values() for item in set(history))
    sets = {user: set(history) for user, history in histories.items() if len(set(history)) >= FEWEST_IN_COMMON}
    users_of: dict[str, list[str]] = {}
    twins: set[str] = set()
    for user, mine in sets.items():
        rarest = sorted(mine, key=lambda item: (counts[item], item))[: len(mine) - ceil(NEARLY_EQUAL * len(mine)) + 1]
        others = Counter(other for item in rarest for other in users_of.get(item, ()))
        for other, _ in others.most_common(MOST_COMPARED):
            theirs = sets[other]
            if min(len(mine), len(theirs)) < NEARLY_EQUAL * max(len(mine), len(theirs)):
                continue  # too different in number to have nearly all in common
            common = len(mine & theirs)
            if common >= max(FEWEST_IN_COMMON, NEARLY_EQUAL * (len(mine) + len(theirs) - common)):
                twins |= {user, other}
        for item in rarest:
            users_of.setdefault(item, []).append(user)
    return sorted(twins)


def _items_that_name_their_users(histories: Mapping[str, Sequence[str]], items: Mapping[str, Item]) -> list[str]:
    """Items whose text holds the id of a user who has them; none if that is no more than chance gives.

    An id may be an ordinary word or number, such as a year. It is then in the texts of many items that the user does
    not have, so the number of hits is compared with that of users who have items at random.
    """
    ids = {user.casefold() for user in histories}
    named = {item: ids.intersection(_words(facts)) for item, facts in items.items()}
    items_naming = Counter(name for names in named.values() for name in names)
    hits = [(item, user) for user, own in histories.items() for item in own if user.casefold() in named.get(item, ())]
    chance = sum(items_naming[user.casefold()] * len(own) for user, own in histories.items()) / max(1, len(items))
    return sorted({item for item, _ in hits}) if len(hits) > max(2.0, 5 * chance) else []


def _words(item: Item) -> Iterator[str]:
    text = f"{item.text} {item.keywords or ''}".casefold()
    yield from re.findall(r"\w+", text)
    for word in text.split():
        yield word.strip(".,;:!?()[]{}\"'")
