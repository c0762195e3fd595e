"""What is known of items in words, as frozen vectors of a sentence encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.baseline import TrainingData
from evaluate.baselines.networks.sequence_settings import ReadText
from programs.runtime.errors import InputError
from programs.runtime.events import Note, OnEvent


@dataclass(frozen=True)
class ItemTexts:
    """Vectors of item texts.

    Attributes:
        rows: Row by item id.
        vectors: Shape (items, d), rows of length 1.
    """

    rows: dict[str, int]
    vectors: NDArray[np.float32]

    @cached_property
    def sha256(self) -> str:
        """Hash of ids and vectors: a fit on other texts, or by another encoder, is another fit."""
        digest = hashlib.sha256("\n".join(self.rows).encode())
        digest.update(np.ascontiguousarray(self.vectors, dtype=np.float32).tobytes())
        return digest.hexdigest()

    def after(self, rows: Mapping[str, int]) -> tuple[dict[str, int], NDArray[np.float32]]:
        """Rows that go on with the items that have a text and no row yet, and the vectors of all rows.

        Args:
            rows: Rows of items by item id, from 0; an item without a text gets a vector of zeros.
        """
        longer = dict(rows)
        for item in self.rows:
            longer.setdefault(item, len(longer))
        vectors = np.zeros((len(longer), self.vectors.shape[1]), dtype=np.float32)
        vectors[[longer[item] for item in self.rows]] = self.vectors[list(self.rows.values())]
        return longer, vectors

    def with_vectors_of(self, newer: ItemTexts) -> ItemTexts:
        """The same rows, with the vectors of `newer` for the items that it has, all of which have a row here."""
        if not newer.rows:
            return self
        vectors = np.array(self.vectors, dtype=np.float32)
        vectors[[self.rows[item] for item in newer.rows]] = newer.vectors
        return ItemTexts(self.rows, vectors)


def item_texts(training: TrainingData, text: ReadText, name: str, on_event: OnEvent) -> ItemTexts:
    """The vectors of the items that have a text.

    Args:
        name: Of the ranker, for messages.
        on_event: Told how many items have traits.

    Raises:
        InputError: if no item has a text, or traits are to be read without a sentence encoder.
    """
    if text == "item":
        found = ItemTexts(training.content.rows, training.content.matrix)
    else:
        found = trait_texts(training, None, name, on_event)
    if not found.rows:
        raise InputError(f"the ranker '{name}' reads item texts, and no item has one; give titles, or choose another")
    return found


def trait_texts(training: TrainingData, others: ItemTexts | None, name: str, on_event: OnEvent) -> ItemTexts:
    """The vectors of MOTE's traits, for the items whose traits are stored; asks no model.

    Args:
        others: Vectors of the other items, and of all items without a sentence encoder; None for those of their titles.
        name: Of the ranker, for messages.
        on_event: Told how many items have traits.

    Raises:
        InputError: if `others` is None and there is no sentence encoder.
    """
    encoder = None if training.motivations is None else training.motivations.encoder
    if encoder is None and others is None:
        raise InputError(f"the ranker '{name}' needs training data with a sentence encoder to read traits")
    traits = {} if training.traits is None or encoder is None else training.traits()
    if others is None:
        texts = {item.item_id: traits.get(item.item_id) or item.display_title for item in training.items.values()}
        texts = {item: own for item, own in texts.items() if own}
        items, rest = list(texts), "titles"
    else:
        texts = {item: traits[item] for item in others.rows if item in traits}
        items, rest = list(others.rows), "texts"
    known = sum(item in traits for item in items)
    on_event(Note(f"{name}: {known:,} items are known by their traits, {len(items) - known:,} by their {rest}"))
    vectors = encoder.encode(list(texts.values())) if encoder is not None and texts else np.zeros((0, 0))
    found = ItemTexts({item: row for row, item in enumerate(texts)}, np.asarray(vectors, dtype=np.float32))
    return found if others is None else others.with_vectors_of(found)
