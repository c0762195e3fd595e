"""Recommends items of a whole catalogue with one program: retrieval by the prior, ranking, reasons."""

from __future__ import annotations

import copy
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evaluate.data.dataset import Dataset
from mllm3rec.api.recommendation import Recommendations, recommendations
from programs.copies import Examples
from programs.lm.ledger import Ledger
from programs.mope import Purchase
from programs.prior.encoders import Encoder
from programs.prior.past_sales import newest_date
from programs.prior.prior import Prior
from programs.prior.prior_v2 import PriorV2
from programs.prior.retrieval import Retriever
from programs.program import MLLM3Rec
from programs.runtime.errors import NothingLeftError, quoted
from programs.runtime.events import Note, OnEvent, ignore
from programs.runtime.nocopy import NoCopy
from signatures.rows import Case
from signatures.types import Item


@dataclass(frozen=True)
class Recommender:
    """A program that is built once, for any number of users.

    Attributes:
        module: The program; it explains as many items as it is to explain.
        retriever: Finds candidates in the catalogue of `dataset`.
        dataset: Whose items are recommended.
        items: Those, and items of histories that are not among them.
        k: Number of items to return.
        candidates: Number of items that the prior retrieves.
    """

    module: MLLM3Rec
    retriever: Retriever
    dataset: Dataset
    items: Mapping[str, Item]
    ledger: Ledger
    k: int
    candidates: int
    on_event: OnEvent = ignore

    def beside(self, items: Mapping[str, Item], vectors: Mapping[str, NDArray[np.floating]]) -> Recommender:
        """The same for histories with items that are not in the catalogue, such as free texts.

        Args:
            items: Those items by id; may grow later, as `vectors` may.
            vectors: Their unit vectors, of those with a text.
        """
        known = ChainMap(self.dataset.items, items)  # type: ignore[arg-type] # nothing is written
        module = copy.copy(self.module)
        module.catalogue = NoCopy(known)
        prior = module.prior.value
        if isinstance(prior, Prior | PriorV2):
            module.prior = NoCopy(prior.beside(vectors))
        return replace(self, module=module, retriever=self.retriever.beside(vectors), items=known)

    def recommend(
        self, user: str, purchases: Sequence[Purchase], known: Sequence[str], metadata: Mapping[str, str]
    ) -> Recommendations:
        """The k best items that the user does not have yet.

        Args:
            user: Name in the result.
            purchases: The history with its items, oldest first.
            known: Ids of the history, also of items that are not in the catalogue any more.

        Raises:
            NothingLeftError: if the user has all items.
        """
        events = tuple(event for _, event in purchases)
        retrieved = next(self.retriever.first([known], self.candidates, [newest_date(events)]))
        if not retrieved:
            raise NothingLeftError(
                f"user {quoted(user)} has all items of {self.dataset.name!r}: none is left to recommend"
            )
        count = f"{len(retrieved)} candidates of {len(self.dataset.items)} items"
        self.on_event(Note(f"the prior retrieved {count}; asking the models"))
        case = Case(user_id=user, history=events, candidates=retrieved, metadata=dict(metadata))
        with self.ledger.usage_of_case() as usage:
            ranking = self.module.rank(case, self.on_event)
        ranking.usage = usage
        return recommendations(ranking, case, self.items, self.k, Examples.of(self.module))


def vectors_of(items: Mapping[str, Item], encoder: Encoder) -> dict[str, NDArray[np.floating]]:
    """Unit vectors of items by id, of those with a text.

    Raises:
        InputError, BudgetExceededError, LMError: as the encoder's `encode`.
    """
    texts = {item_id: item.text for item_id, item in items.items() if item.text}
    return dict(zip(texts, encoder.encode(list(texts.values())), strict=True))
