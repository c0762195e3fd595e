"""Price and brand of a candidate beside those of the history."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from evaluate.baselines.sources.lists import FeatureColumns, ItemIndex, Lists
from signatures.types import Item


class Shop:
    """`brand`: share of the candidate's brand among the branded items of the history; NaN without a brand.

    `price`: log(1 + price). `price.distance`: absolute difference of `price` to the mean of the history.
    """

    names = ("brand", "price", "price.distance")

    def __init__(self, items: Mapping[str, Item], index: ItemIndex) -> None:
        brands: dict[str, int] = {}
        self._brands = np.full(index.size, -1, dtype=np.intp)
        self._prices = np.full(index.size, np.nan)
        for item_id, row in index.rows.items():
            item = items.get(item_id)
            if item is not None and item.brand:
                self._brands[row] = brands.setdefault(item.brand, len(brands))
            if item is not None and item.price is not None:
                self._prices[row] = np.log1p(item.price)

    def features(self, lists: Lists) -> FeatureColumns:
        """See `Source.features`."""
        own, bought = self._brands[lists.candidates], self._brands[lists.histories]
        same = ((bought[lists.owner] == own[:, None]) & (own >= 0)[:, None]).sum(axis=1)
        branded = (bought >= 0).sum(axis=1)[lists.owner]
        share = np.where((own >= 0) & (branded > 0), same / np.maximum(branded, 1), np.nan)
        price, paid = self._prices[lists.candidates], self._prices[lists.histories]
        known = ~np.isnan(paid)
        mean = np.where(known, paid, 0.0).sum(axis=1) / np.where(known.any(axis=1), known.sum(axis=1), np.nan)
        return np.column_stack([share, price, np.abs(price - mean[lists.owner])])
