"""The demo store: a small invented catalogue and its simulated shoppers, as a Dataset with a known truth."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

import pandas as pd

from evaluate.data.dataset import Dataset
from evaluate.data.demo.shoppers import Product, Shopper, simulate
from evaluate.data.records.interactions import INTERACTION_COLUMNS
from signatures.types import Item


def demo_dataset() -> Dataset:
    """The store as every loader would return it; the planted truth is not in it.

    >>> store = demo_dataset()
    >>> len(store.items), len(store.sequences)
    (105, 400)
    """
    rows = [
        (shopper.user_id, purchase.item_id, purchase.rating, purchase.timestamp, position)
        for shopper in _shoppers()
        for position, purchase in enumerate(shopper.purchases)
    ]
    frame = pd.DataFrame(rows, columns=list(INTERACTION_COLUMNS)).astype({"timestamp": "Int64"})
    return Dataset(
        name="demo",
        items={p.item.item_id: p.item for p in _products()},
        interactions=frame.sort_values(["user_id", "position"], ignore_index=True),
        metadata={s.user_id: dict(s.metadata) for s in _shoppers()},
        notes=(
            "Products, brands, texts and shoppers are invented; figures on this store say nothing about real shoppers.",
            "Every shopper was given two motivations, which most of their purchases serve.",
        ),
        format="demo",
        source="demo",
    )


def served_dimensions() -> dict[str, tuple[str, ...]]:
    """The planted truth about products: the dimensions each one serves, by item id.

    >>> served_dimensions()["D001"]
    ('functionality', 'durability')
    """
    return {p.item.item_id: p.serves for p in _products()}


def planted_motivations() -> dict[str, tuple[str, ...]]:
    """The planted truth about shoppers: their motivations, primary first, by user id."""
    return {s.user_id: s.motivations for s in _shoppers()}


@cache
def _products() -> tuple[Product, ...]:
    text = resources.files("evaluate.data.demo").joinpath("products.toml").read_text(encoding="utf-8")
    return tuple(
        Product(
            item=Item(
                item_id=entry["id"],
                title=entry["title"],
                description=entry["description"],
                categories=(tuple(entry["category"]),),
                brand=entry["brand"],
                price=entry["price"],
            ),
            serves=tuple(entry["serves"]),
        )
        for entry in tomllib.loads(text)["product"]
    )


@cache
def _shoppers() -> tuple[Shopper, ...]:
    return tuple(simulate(_products()))
