"""The demo store: a small invented catalogue and its simulated users, as a `Dataset` with known motivations."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources

import pandas as pd

from evaluate.data.dataset import Dataset
from evaluate.data.demo.users import DemoItem, SimulatedUser, simulate
from evaluate.data.records.interactions import INTERACTION_COLUMNS
from signatures.types import Item


def demo_dataset() -> Dataset:
    """The demo store in the form of every loader; without the planted truth.

    >>> store = demo_dataset()
    >>> len(store.items), len(store.sequences)
    (105, 400)
    """
    rows = [
        (user.user_id, purchase.item_id, purchase.rating, purchase.timestamp, position)
        for user in _users()
        for position, purchase in enumerate(user.purchases)
    ]
    frame = pd.DataFrame(rows, columns=list(INTERACTION_COLUMNS)).astype({"timestamp": "Int64"})
    return Dataset(
        name="demo",
        items={entry.item.item_id: entry.item for entry in demo_items()},
        interactions=frame.sort_values(["user_id", "position"], ignore_index=True),
        metadata={user.user_id: dict(user.metadata) for user in _users()},
        notes=(
            "Items, brands, texts and users are invented; figures on this store say nothing about real users.",
            "Every user was given two motivations, which most of their purchases serve.",
        ),
        format="demo",
        source="demo",
    )


def planted_motivations() -> dict[str, tuple[str, ...]]:
    """The planted motivations by user id, primary first."""
    return {user.user_id: user.motivations for user in _users()}


@cache
def demo_items() -> tuple[DemoItem, ...]:
    """The items with the schema dimensions they serve.

    >>> demo_items()[0].item.title, demo_items()[0].serves
    ("Sturnholt 20 cm Chef's Knife", ('functionality', 'durability'))
    """
    text = resources.files("evaluate.data.demo").joinpath("products.toml").read_text(encoding="utf-8")
    return tuple(
        DemoItem(
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
def _users() -> tuple[SimulatedUser, ...]:
    return tuple(simulate(demo_items()))
