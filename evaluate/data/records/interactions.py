"""Interactions of a file, checked against the catalogue and put in order for a `Dataset`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluate.data.records.reading import location
from programs.runtime.errors import InputError, quoted

INTERACTION_COLUMNS = ("user_id", "item_id", "rating", "timestamp", "position")


class InteractionRecord(NamedTuple):
    """One interaction as read from a file.

    Attributes:
        timestamp: Unix seconds, fractions included: they decide the order.
        position: Position in the user's sequence; only the order matters.
    """

    user_id: str
    item_id: str
    rating: float | None
    timestamp: float | None
    position: float | None = None


def check_known(
    path: Path, events: Sequence[tuple[int, InteractionRecord]], items: Collection[str], listed_in: Path
) -> None:
    """Check that the item of every interaction is listed.

    Raises:
        InputError: naming the first interaction with an unlisted item, and their number.
    """
    unknown = [(line, event.item_id) for line, event in events if event.item_id not in items]
    if unknown:
        line, item_id = unknown[0]
        raise InputError(
            f"{location(path, line)}: item {quoted(item_id)} is not in {listed_in.name} "
            f"(interactions with unlisted items: {len(unknown):,}); list it there or remove them"
        )


def in_order(path: Path, events: Sequence[tuple[int, InteractionRecord]]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The frame of `Dataset.interactions`, and notes about it.

    A user's interactions are ordered by position if given, else by time, then by the order in the file. Of several
    interactions of a user with one item the first is kept.

    Args:
        path: The file the events come from, for messages.
        events: Interactions with their line numbers, in the file's order; not empty.

    Raises:
        InputError: If only some events have a position (or, without positions, a timestamp).
    """
    frame = pd.DataFrame([event for _, event in events], columns=list(INTERACTION_COLUMNS))
    frame = frame.astype({"user_id": "str", "item_id": "str", **dict.fromkeys(INTERACTION_COLUMNS[2:], "float64")})
    lines = np.array([line for line, _ in events])
    keys: list[str] = []
    for key in ("position", "timestamp"):
        given = frame[key].notna().to_numpy()
        if given.all():
            keys.append(key)
        elif given.any() and not keys:
            raise InputError(
                f"{location(path, int(lines[~given][0]))}: field {key!r} is missing here and given elsewhere, so the "
                "order of interactions is unknown; give it everywhere or nowhere"
            )
    # By line number last: a sort by several keys is not guaranteed to be stable.
    frame = frame.assign(line=lines).sort_values(["user_id", *keys, "line"], ignore_index=True)
    repeated = frame.duplicated(["user_id", "item_id"])
    frame = frame.loc[~repeated, list(INTERACTION_COLUMNS)].reset_index(drop=True)
    frame["timestamp"] = np.floor(frame["timestamp"]).astype("Int64")
    frame["position"] = frame.groupby("user_id").cumcount()

    notes = [f"Order of a user's interactions: {', then '.join([*keys, 'order in the file'])}."]
    if repeated.any():
        notes.append(f"Repeated interactions of a user with the same item, first one kept: {repeated.sum():,} dropped.")
    unrated = int(frame["rating"].isna().sum())
    if unrated:
        notes.append(f"Interactions without a rating: {unrated:,} of {len(frame):,}.")
    return frame, tuple(notes)
