"""Item features as a sparse matrix: categories, brand, price and title words."""

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
    """All nodes on the item's category paths, each as the path from the root; in order, without repetition.

    >>> category_prefixes(Item(item_id="a", categories=(("Toys", "Games"), ("Toys", "Puzzles"))))
    ['Toys', 'Toys > Games', 'Toys > Puzzles']
    """
    paths = item.categories
    return list(dict.fromkeys(" > ".join(path[: depth + 1]) for path in paths for depth in range(len(path))))


def leaf_categories(items: Mapping[str, Item]) -> dict[str, str]:
    """The most specific category path of every item that has one, as one string."""
    return {item_id: " > ".join(item.category) for item_id, item in items.items() if item.category}


def brands(items: Mapping[str, Item]) -> dict[str, str]:
    """The brand of every item that has one."""
    return {item_id: item.brand for item_id, item in items.items() if item.brand}


def title_words(item: Item) -> list[str]:
    """The title's words of at least three letters or digits, lower case, without repetition.

    >>> title_words(Item(item_id="a", title="The Little Box: a Little Easel"))
    ['the', 'little', 'box', 'easel']
    """
    return list(dict.fromkeys(words_of(item.title)))


def words_of(text: str) -> list[str]:
    """The words of at least three letters or digits, lower case, as often as they occur."""
    return _WORD.findall(text.lower())


def price_edges(items: Mapping[str, Item]) -> NDArray[np.float64]:
    """The nine deciles of the catalogue's prices, shape (9,); empty if no item has a price."""
    prices = [item.price for item in items.values() if item.price is not None]
    return np.quantile(prices, np.linspace(0.1, 0.9, 9)) if prices else np.zeros(0)


def feature_names(items: Mapping[str, Item], least_items: int = 5) -> dict[str, list[str]]:
    """Names of the features of every item: categories, brand, price decile and title words.

    Args:
        items: The catalogue by id.
        least_items: Fewest items of a brand or word that is used as a feature.
    """
    edges = price_edges(items)
    brands_and_words = {}
    for item_id, item in items.items():
        brand = [f"brand:{item.brand}"] if item.brand else []
        brands_and_words[item_id] = brand + [f"word:{word}" for word in title_words(item)]
    counts = Counter(name for names in brands_and_words.values() for name in names)
    out = {}
    for item_id, item in items.items():
        price = [] if item.price is None else [f"price:{int(np.searchsorted(edges, item.price))}"]
        common = [name for name in brands_and_words[item_id] if counts[name] >= least_items]
        out[item_id] = [f"category:{path}" for path in category_prefixes(item)] + price + common
    return out


def feature_matrix(features: Sequence[Sequence[str]], columns: Mapping[str, int]) -> sparse.csr_matrix:
    """Feature matrix for LightFM: each row has a column of its own and its features, with equal weights that sum to 1.

    Args:
        features: Feature names by row; those without a column are left out.
        columns: Column by feature name; the columns before them are the rows' own.

    Returns:
        Shape (rows, rows + len(columns)), float32.
    """
    known = [[row, *_known(names, columns)] for row, names in enumerate(features)]
    return _equal_weights(known, len(features) + len(columns))


def matrix_of_features_alone(
    features: Sequence[Sequence[str]], columns: Mapping[str, int], width: int
) -> sparse.csr_matrix:
    """As `feature_matrix`, for rows that were not fitted, so that they have no column of their own.

    Args:
        width: Columns of the matrix that was fitted.

    Returns:
        Shape (rows, width), float32; a row without a known feature is empty.
    """
    return _equal_weights([_known(names, columns) for names in features], width)


def _known(names: Sequence[str], columns: Mapping[str, int]) -> list[int]:
    return [columns[name] for name in names if name in columns]


def _equal_weights(columns: Sequence[Sequence[int]], width: int) -> sparse.csr_matrix:
    lengths = np.array([len(own) for own in columns], dtype=np.int32)
    cols = np.concatenate([np.empty(0, dtype=np.int32), *(np.array(own, dtype=np.int32) for own in columns)])
    weights = np.repeat(1.0 / np.maximum(lengths, 1), lengths).astype(np.float32)
    # LightFM needs 32-bit indices.
    rows = np.repeat(np.arange(len(columns), dtype=np.int32), lengths)
    return sparse.csr_matrix((weights, (rows, cols)), shape=(len(columns), width))


def columns_of(features: Sequence[Sequence[str]]) -> dict[str, int]:
    """A column for every feature, in the order of first appearance, after one column per row.

    >>> columns_of([["x", "y"], ["y", "z"]])
    {'x': 2, 'y': 3, 'z': 4}
    """
    names = dict.fromkeys(name for row in features for name in row)
    return {name: len(features) + index for index, name in enumerate(names)}
