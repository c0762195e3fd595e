"""Sales evidence in words, for MAR to read beside the traits: what an item is bought after, and how popular it is.

Published re-rankers live on such collaborative evidence. It is the shop's own, not the seller's: department names that
several items share, and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from itertools import pairwise

import dspy
import numpy as np

from programs.lm.backends import Backends
from programs.mote import MOTE, NO_TRAITS, fallback_text
from programs.prior.scorers import Histories, Popularity
from programs.runtime.nocopy import NoCopy
from programs.trait_store import TraitStore
from signatures.types import Item

NAMED = 2
"""Number of departments named."""

LEAST_USERS = 2
"""Fewest users who bought the item right after one of a department, for the department to be named."""

BANDS = ((0.9, "bestseller"), (0.6, "popular"), (0.0, "rarely bought"))
"""Share of the sold items that sell less, from which on an item has the name."""

UNSOLD = "new, nobody bought it yet"


class SalesEvidence:
    """Evidence on items from training data.

    Args:
        histories: Item ids by user, oldest first, without held-out items.
        catalogue: Items by id.
        categories: Names of categories that may be shown, see `known_categories`.
    """

    def __init__(self, histories: Histories, catalogue: Mapping[str, Item], categories: Collection[str]) -> None:
        self.popularity = Popularity.fit(histories).counts
        self._sold = np.sort(np.array(list(self.popularity.values()), dtype=float))
        names = {item_id: fallback_text(item, categories) for item_id, item in catalogue.items()}
        self._before: dict[str, Counter[str]] = {}
        self._departments: Counter[str] = Counter()
        for history in histories.values():
            pairs = {(names.get(before, NO_TRAITS), after) for before, after in pairwise(history) if before != after}
            for name, after in pairs:  # once for each user, however often
                if name != NO_TRAITS:
                    self._before.setdefault(after, Counter())[name] += 1
                    self._departments[name] += 1

    def words(self, item_id: str) -> str:
        """The evidence on one item: its popularity, and the departments that speak most for it.

        A department counts by the users who bought from it right before the item, over what its own size lets expect.
        """
        counts = self._before.get(item_id, Counter())
        enough = [name for name, users in counts.items() if users >= LEAST_USERS]
        telling = sorted(enough, key=lambda name: (-counts[name] / self._departments[name] ** 0.5, name))[:NAMED]
        after = f"often bought after: {', '.join(telling)}; " if telling else ""
        return after + self._band(item_id)

    def _band(self, item_id: str) -> str:
        if not (users := self.popularity.get(item_id, 0)):
            return UNSOLD
        below = float(np.searchsorted(self._sold, users, side="left")) / len(self._sold)
        return next(name for least, name in BANDS if below >= least)


class EvidenceMOTE(MOTE):
    """MOTE whose text for MAR ends with the sales evidence; its traits are MOTE's own, and as cheap."""

    def __init__(
        self,
        evidence: SalesEvidence,
        backends: Backends | None = None,
        store: TraitStore | None = None,
        categories: Collection[str] | None = None,
    ) -> None:
        super().__init__(backends, store, categories)
        self.evidence = NoCopy(evidence)

    def __call__(self, item: Item | str) -> dspy.Prediction:
        """See `MOTE.forward`."""
        answer = super().__call__(item)
        item_id = item if isinstance(item, str) else item.item_id
        text = f"{answer.text}; {self.evidence.value.words(item_id)}"
        return dspy.Prediction(traits=answer.traits, text=text, unparsable=answer.unparsable)
