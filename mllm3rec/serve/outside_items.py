"""Items outside the catalogue: free texts in the histories of new users, with their vectors, in bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Container, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mllm3rec.api.recommender import vectors_of
from programs.prior.encoders import Encoder
from signatures.types import Item

MOST_TEXTS = 20_000
"""Texts that are kept; far more than requests under way can have."""


class OutsideItems(Mapping[str, Item]):
    """Items by id, the `MOST_TEXTS` that were used last, for programs; `vectors` has their embeddings, for the prior.

    A text that is the id of an item of the catalogue stands for that item: no caller can give it another vector.
    Safe to use from several threads.
    """

    def __init__(self, encoder: Encoder, catalogue: Container[str]) -> None:
        self._encoder = encoder
        self._catalogue = catalogue
        self._items: OrderedDict[str, Item] = OrderedDict()
        self._lock = threading.Lock()
        self.vectors: dict[str, NDArray[np.floating]] = {}

    def add(self, texts: Sequence[str]) -> list[Item]:
        """The items of free texts, which are their ids; new ones are embedded.

        Raises:
            InputError, BudgetExceededError, LMError: as the encoder's `encode`.
        """
        new = []
        with self._lock:
            for text in dict.fromkeys(texts):
                if text in self._items:
                    self._items.move_to_end(text)  # in use again, so it is not the next to be forgotten
                elif text not in self._catalogue:
                    new.append(text)
        if new:
            items = {text: Item.from_text(text) for text in new}
            # Outside of the lock: others need not wait while a server embeds these.
            vectors = vectors_of(items, self._encoder)
            with self._lock:
                self.vectors.update(vectors)
                self._items.update(items)
                while len(self._items) > MOST_TEXTS:
                    oldest, _ = self._items.popitem(last=False)
                    self.vectors.pop(oldest, None)
        return [Item.from_text(text) for text in texts]

    def __getitem__(self, item_id: str) -> Item:
        return self._items[item_id]

    def __contains__(self, item_id: object) -> bool:
        return item_id in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._items))

    def __len__(self) -> int:
        return len(self._items)
