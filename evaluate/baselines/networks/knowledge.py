"""Knowledge graph of a catalogue: triples (item, relation, entity) from categories, brands and price bands."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from evaluate.baselines.item_features import category_prefixes, price_edges
from signatures.types import Item

RELATIONS = ("category", "brand", "price")


@dataclass(frozen=True)
class KnowledgeGraph:
    """Triples of items.

    Attributes:
        entities: Number of entities.
        triples: Shape (triples, 3): row of the item, place in `RELATIONS`, row of the entity.
    """

    entities: int
    triples: NDArray[np.int64]

    @cached_property
    def sha256(self) -> str:
        """Hash of the triples: a fit on other facts is another fit."""
        return hashlib.sha256(np.ascontiguousarray(self.triples).tobytes()).hexdigest()

    @classmethod
    def of(cls, items: Mapping[str, Item], rows: Mapping[str, int]) -> Self:
        """The triples of the items that have a row.

        An entity of one item, or of more than half of them, says nothing about which items belong together and is
        left out.
        """
        edges = price_edges(items)
        owners: dict[tuple[int, str], list[int]] = {}
        for item_id, row in rows.items():
            if item_id in items:
                for fact in _facts(items[item_id], edges):
                    owners.setdefault(fact, []).append(row)
        kept = {fact: own for fact, own in owners.items() if 1 < len(own) <= max(2, len(rows) // 2)}
        triples = [(row, fact[0], entity) for entity, (fact, own) in enumerate(kept.items()) for row in own]
        return cls(len(kept), np.array(triples, dtype=np.int64).reshape(-1, 3))


def _facts(item: Item, edges: NDArray[np.float64]) -> Iterator[tuple[int, str]]:
    """Relation and entity of every fact about an item."""
    for path in category_prefixes(item):
        yield 0, path
    if item.brand:
        yield 1, item.brand
    if item.price is not None:
        yield 2, str(int(np.searchsorted(edges, item.price)))
