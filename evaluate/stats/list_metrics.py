"""Metrics of recommended lists beside their hits: novelty, popularity, popularity bias, diversity and coverage.

They need no target: they say what is recommended, not whether it is right. All depend on the candidates:
docs/protocol.md says how to read them on lists of sampled negatives.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from programs.runtime.errors import InputError

NOVELTY, POPULARITY, POPULARITY_BIAS, DIVERSITY = "novelty", "popularity", "popularity bias", "diversity"
UNBOUNDED = (NOVELTY, POPULARITY, POPULARITY_BIAS)
"""Metrics in bits or users; all others lie between 0 and 1."""


@dataclass(frozen=True)
class Background:
    """What recommended items are compared with.

    Attributes:
        histories: Item ids of the training data by user.
        users_of: Number of users of the training data by item.
        categories: Names of the categories of each item, on all levels; items without any are absent.
    """

    histories: Mapping[str, Collection[str]]
    users_of: Mapping[str, int]
    categories: Mapping[str, frozenset[str]]

    def self_information(self, item: str) -> float:
        """-log2((n + 1) / (N + 1)) bits, for n of the N users of the training data: 0 if all have the item.

        The added one keeps it finite for an item that nobody has.
        """
        return -math.log2((self.users_of.get(item, 0) + 1) / (len(self.histories) + 1))

    def popularity_for(self, user: str, item: str) -> int:
        """Number of other users of the training data who have the item."""
        return self.users_of.get(item, 0) - (item in self.histories.get(user, ()))

    def distance(self, one: str, other: str) -> float:
        """1 minus the Jaccard similarity of the categories of two items; NaN if one of them has none.

        >>> shop = Background({}, {}, {"a": frozenset({"Toys", "Kites"}), "b": frozenset({"Toys", "Balls"})})
        >>> round(shop.distance("a", "b"), 3), shop.distance("a", "c")
        (0.667, nan)
        """
        first, second = self.categories.get(one), self.categories.get(other)
        if not first or not second:
            return math.nan
        return 1.0 - len(first & second) / len(first | second)


def list_metrics(
    orders: Mapping[str, Sequence[str]],
    shown: Mapping[str, Sequence[str]],
    background: Background,
    ks: Sequence[int],
) -> pd.DataFrame:
    """Metrics of the first k items of every user's list.

    - `novelty@k`: mean self-information of the items, -log2((n + 1) / (N + 1)) bits (`Background.self_information`;
      Zhou et al. 2010).
    - `popularity@k`: mean number of users of the training data who have the item (average recommendation popularity,
      Yin et al. 2012).
    - `popularity bias@k`: `popularity@k` minus the same mean over the user's history, not counting the user. Above 0
      the list is more popular than what the user chose.
    - `diversity@k`: mean distance of the k (k - 1) / 2 pairs of items (intra-list diversity, Ziegler et al. 2005), by
      categories (`Background.distance`). Pairs with an item that has no category are left out; none at k = 1.

    Args:
        orders: Item ids by user, best first.
        shown: Item ids of the history by user.
        ks: Lengths of the list.

    Returns:
        One row per user, sorted by the index `user_id`; NaN where a metric is not defined for a user, and no column of
        `diversity@1`.

    >>> shop = Background({"x": "ab", "y": "a", "z": "c"}, {"a": 2, "b": 1, "c": 1}, {})
    >>> list_metrics({"x": ["c", "d"]}, {"x": ["a", "b"]}, shop, [1, 2]).round(3).to_dict("list")["popularity bias@2"]
    [0.0]
    """
    rows: dict[str, dict[str, float]] = {}
    for user in sorted(orders):
        first = orders[user][: max(ks)]
        information = np.array([background.self_information(item) for item in first])
        popularity = np.array([background.popularity_for(user, item) for item in first], dtype=float)
        own = [background.popularity_for(user, item) for item in shown.get(user, ())]
        usual = float(np.mean(own)) if own else math.nan
        distances = {(i, j): background.distance(first[i], first[j]) for i, j in combinations(range(len(first)), 2)}
        row: dict[str, float] = {}
        for k in ks:
            row[f"{NOVELTY}@{k}"] = float(information[:k].mean())
            row[f"{POPULARITY}@{k}"] = float(popularity[:k].mean())
            row[f"{POPULARITY_BIAS}@{k}"] = row[f"{POPULARITY}@{k}"] - usual
            known = [value for (_, j), value in distances.items() if j < k and not math.isnan(value)]
            if k > 1:
                row[f"{DIVERSITY}@{k}"] = float(np.mean(known)) if known else math.nan
        rows[user] = row
    frame = pd.DataFrame.from_dict(rows, orient="index")
    return frame.rename_axis(index="user_id")


class Coverage(BaseModel):
    """Catalogue coverage: how much of the catalogue is recommended to somebody (Ge et al. 2010).

    It is a property of all lists together, not a mean over users, so it has no interval, and it grows with the users.

    Attributes:
        share: Items in the first k of at least one user, as a share of the catalogue.
        reachable: Items among the candidates of at least one user, likewise: no ranker of these lists covers more.
        recommended: Number of items behind `share`.
        catalogue: Items with an interaction.
    """

    model_config = ConfigDict(frozen=True)

    share: float = Field(ge=0, le=1)
    reachable: float = Field(ge=0, le=1)
    recommended: int = Field(ge=0)
    catalogue: int = Field(ge=1)


def coverage(orders: Mapping[str, Sequence[str]], catalogue: Collection[str], k: int) -> Coverage:
    """Coverage of a catalogue by the first k items of each list.

    Args:
        orders: All candidates by user, best first.
        catalogue: Ids of all items that could have been candidates.

    >>> found = coverage({"u": "abc", "v": "bad"}, "abcdefgh", k=1)
    >>> found.share, found.reachable, found.recommended
    (0.25, 0.5, 2)
    """
    if not catalogue:
        raise InputError("a catalogue without items has no coverage; give the items that could be candidates")
    items = set(catalogue)
    recommended = items.intersection(item for order in orders.values() for item in order[:k])
    candidates = items.intersection(item for order in orders.values() for item in order)
    return Coverage(
        share=len(recommended) / len(items),
        reachable=len(candidates) / len(items),
        recommended=len(recommended),
        catalogue=len(items),
    )
