"""`Dataset`: items, ordered interactions, user metadata, and a hash of all of them; the result of every loader."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from evaluate.data.records.frames import read_frames
from evaluate.data.records.interactions import INTERACTION_COLUMNS
from programs.runtime.errors import InputError, quoted
from signatures.types import Interaction, Item, with_items


@dataclass(frozen=True)
class Dataset:
    """A catalogue and the interactions of its users.

    Attributes:
        name: Short name for reports, e.g. `toys`.
        items: Every item with its texts, by id.
        interactions: One row per interaction with the columns `INTERACTION_COLUMNS`: user_id and item_id (str),
            rating (float, NaN where absent), timestamp (Int64 unix seconds, NA where absent) and
            position (int, 0-based and chronological within a user). Sorted by user_id, position.
        metadata: z_u by user id; users without any are absent.
        notes: What the loader decided or dropped, one sentence each; printed by `data describe`.
        format: Format it was read from.
        source: A path, `demo`, or `in-memory`.
        columns: Names of its columns by ours that were given to read it.
        stands_for: Name of the dataset that was wanted and not found, in whose place this one was loaded; or empty.
    """

    name: str
    items: dict[str, Item]
    interactions: pd.DataFrame
    metadata: dict[str, dict[str, str]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    format: str = "plain"
    source: str = "in-memory"
    columns: Mapping[str, str] = field(default_factory=dict)
    stands_for: str = ""

    def shown_name_as(self, name: str) -> str:
        """The name that reports give to this dataset where it is called `name`: one that stands in says so."""
        return f"{self.name} ({self.stands_for} not found)" if self.stands_for else name

    @staticmethod
    def from_frames(
        interactions: object,
        items: object | None = None,
        users: object | None = None,
        columns: Mapping[str, str] | None = None,
        name: str = "frames",
    ) -> Dataset:
        """A dataset from data frames (pandas, polars or Arrow).

        Args:
            interactions: User and item ids; rating (0 to 5), timestamp (unix seconds or a date) where known.
            items: Item ids and texts (title, description, categories, brand, price, keywords), or None.
            users: User ids and any columns of metadata.
            columns: Names of your columns by our names, for columns that are not recognized.
            name: Short name for reports.

        Raises:
            InputError: naming the column, or the row and field, that is missing or invalid.
        """
        records = read_frames(interactions, items, users, columns or {})
        return Dataset(name, records.items, records.interactions, records.metadata, records.notes, format="frames")

    @cached_property
    def sha256(self) -> str:
        """Hash of the interactions, item texts and metadata."""
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

    @cached_property
    def histories(self) -> dict[str, tuple[str, ...]]:
        """Item ids by user, oldest first; nothing is held out."""
        return {user: tuple(event.item_id for event in events) for user, events in self.sequences.items()}

    def purchases(self, user: str) -> list[tuple[Item, Interaction]]:
        """The history of a user with its items, oldest first; without items that are not in the catalogue."""
        return with_items(self.sequences[user], self.items)

    def describe(self) -> dict[str, object]:
        """Facts for people, by name: counts, coverage of texts and ratings, lengths of histories, the hash."""
        lengths = self.interactions.groupby("user_id").size()
        items = list(self.items.values())
        return {
            "name": self.name,
            "format": self.format,
            "users": len(lengths),
            "items": len(items),
            "interactions": len(self.interactions),
            "with rating": _share(int(self.interactions["rating"].notna().sum()), len(self.interactions)),
            "items with title": _share(sum(bool(item.title) for item in items), len(items)),
            "items with description": _share(sum(bool(item.description) for item in items), len(items)),
            "items with brand": _share(sum(item.brand is not None for item in items), len(items)),
            "items with price": _share(sum(item.price is not None for item in items), len(items)),
            "users with metadata": _share(len(self.metadata.keys() & set(lengths.index)), len(lengths)),
            "interactions per user, median": float(lengths.median()),
            "interactions per user, longest": int(lengths.max()),
            "sha256": self.sha256,
        }

    def item(self, item_id: str) -> Item:
        """The item with this id; an InputError if there is none."""
        try:
            return self.items[item_id]
        except KeyError:
            raise InputError(f"item {quoted(item_id)} is not in dataset {quoted(self.name)}") from None


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.2%}" if whole else "-"
