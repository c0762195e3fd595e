"""What an item's description says, as a sparse matrix: categories, brand, price and words of its title."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from signatures.types import Item

_WORD = re.compile(r"\w{3,}")


def category_prefixes(item: Item) -> list[str]:
    """Every node on the item's category paths, named by the way from the root; in order, without repetition.

    >>> category_prefixes(Item(item_id="a", categories=(("Toys", "Games"), ("Toys", "Puzzles"))))
    ['Toys', 'Toys > Games', 'Toys > Puzzles']
    """
    paths = item.categories
    return list(dict.fromkeys(" > ".join(path[: depth + 1]) for path in paths for depth in range(len(path))))


def title_words(item: Item) -> list[str]:
    """The title's words of at least three letters or digits, lower case, without repetition.

    >>> title_words(Item(item_id="a", title="The Little Box: a Little Easel"))
    ['the', 'little', 'box', 'easel']
    """
    return list(dict.fromkeys(_WORD.findall(item.title.lower())))


def price_edges(items: Mapping[str, Item]) -> NDArray[np.float64]:
    """The prices between the tenths of the catalogue, shape (9,); empty where no item has a price."""
    prices = [item.price for item in items.values() if item.price is not None]
    return np.quantile(prices, np.linspace(0.1, 0.9, 9)) if prices else np.zeros(0)


def feature_names(items: Mapping[str, Item], least_items: int = 5) -> dict[str, list[str]]:
    """The features of every item: categories, brand, tenth of the price, and words of titles.

    Args:
        items: The catalogue by id.
        least_items: A brand or word of fewer items is no feature: it would say no more than the item's own vector.
    """
    edges = price_edges(items)
    named = {}
    for item_id, item in items.items():
        brand = [f"brand:{item.brand}"] if item.brand else []
        named[item_id] = brand + [f"word:{word}" for word in title_words(item)]
    counts = Counter(name for names in named.values() for name in names)
    out = {}
    for item_id, item in items.items():
        price = [] if item.price is None else [f"price:{int(np.searchsorted(edges, item.price))}"]
        common = [name for name in named[item_id] if counts[name] >= least_items]
        out[item_id] = [f"category:{path}" for path in category_prefixes(item)] + price + common
    return out


def feature_matrix(features: Sequence[Sequence[str]], columns: Mapping[str, int]) -> sparse.csr_matrix:
    """One row per thing: what it is itself and what its features are, in equal shares that sum to 1.

    Args:
        features: Names by row; those without a column are left out.
        columns: Column by name; the r-th thing's own column is r, so names start at the number of rows.

    Returns:
        Shape (rows, rows + len(columns)), float32.
    """
    rows, cols, shares = [], [], []
    for row, names in enumerate(features):
        known = [row, *(columns[name] for name in names if name in columns)]
        rows += [row] * len(known)
        cols += known
        shares += [1.0 / len(known)] * len(known)
    places = (np.array(rows, dtype=np.int32), np.array(cols, dtype=np.int32))  # LightFM reads 32-bit indices only
    shape = (len(features), len(features) + len(columns))
    return sparse.csr_matrix((np.array(shares, dtype=np.float32), places), shape=shape)


def columns_of(features: Sequence[Sequence[str]]) -> dict[str, int]:
    """A column for every feature, in the order of first mention, after one column per row.

    >>> columns_of([["x", "y"], ["y", "z"]])
    {'x': 2, 'y': 3, 'z': 4}
    """
    names = dict.fromkeys(name for row in features for name in row)
    return {name: len(features) + place for place, name in enumerate(names)}
