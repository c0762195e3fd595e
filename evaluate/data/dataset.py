"""What every loader returns: items, interactions in order, shopper metadata, and a hash of it all."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from programs.runtime.errors import InputError
from signatures.types import Interaction, Item

INTERACTION_COLUMNS = ("user_id", "item_id", "rating", "timestamp", "position")


@dataclass(frozen=True)
class Dataset:
    """A catalogue and who bought what.

    Attributes:
        name: Short name for reports, e.g. `toys`.
        items: Every item with its texts, by id.
        interactions: One row per interaction with the columns `INTERACTION_COLUMNS`: user_id and item_id (str),
            rating (float, NaN where absent), timestamp (Int64 unix seconds, NA where absent) and
            position (int, 0-based and chronological within a user). Sorted by user_id, position.
        metadata: z_u by user id; users without any are absent.
        notes: What the loader had to decide or drop, one sentence each; printed by `data describe`.
        format: Which loader read it.
    """

    name: str
    items: dict[str, Item]
    interactions: pd.DataFrame
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: str = "plain"

    @cached_property
    def sha256(self) -> str:
        """Hash of the interactions, the item texts and the metadata: what a result depends on."""
        digest = hashlib.sha256()
        frame = self.interactions.loc[:, list(INTERACTION_COLUMNS)]
        digest.update(pd.util.hash_pandas_object(frame.astype(str), index=False).to_numpy().tobytes())
        for item_id in sorted(self.items):
            digest.update(self.items[item_id].model_dump_json().encode())
        for user_id in sorted(self.metadata):
            digest.update(repr((user_id, sorted(self.metadata[user_id].items()))).encode())
        return digest.hexdigest()

    @cached_property
    def sequences(self) -> dict[str, tuple[Interaction, ...]]:
        """Every user's interactions, oldest first."""
        out: dict[str, list[Interaction]] = {}
        frame = self.interactions
        ratings = frame["rating"].astype(object).where(frame["rating"].notna(), None)
        times = frame["timestamp"].astype(object).where(frame["timestamp"].notna(), None)
        for user, item, rating, time in zip(frame["user_id"], frame["item_id"], ratings, times, strict=True):
            out.setdefault(user, []).append(Interaction.model_construct(item_id=item, rating=rating, timestamp=time))
        return {user: tuple(rows) for user, rows in out.items()}

    def item(self, item_id: str) -> Item:
        """The item, or an InputError that names the dataset."""
        try:
            return self.items[item_id]
        except KeyError:
            raise InputError(f"item {item_id!r} is not in dataset {self.name!r}") from None
