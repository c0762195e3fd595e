"""From the interactions of a file to the ordered frame of a `Dataset`."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from evaluate.data.records.reading import place
from programs.runtime.errors import InputError

INTERACTION_COLUMNS = ("user_id", "item_id", "rating", "timestamp", "position")


class RawInteraction(NamedTuple):
    """One interaction as a file has it.

    Attributes:
        timestamp: Unix seconds, fractions included: they decide the order.
        position: Place in the user's sequence, in any unit that sorts.
    """

    user_id: str
    item_id: str
    rating: float | None
    timestamp: float | None
    position: float | None = None


def check_known(
    path: Path, events: Sequence[tuple[int, RawInteraction]], items: Collection[str], listed_in: Path
) -> None:
    """Every interaction's item is listed.

    Raises:
        InputError: Names the first interaction whose item is not, and says how many there are.
    """
    unknown = [(line, event.item_id) for line, event in events if event.item_id not in items]
    if unknown:
        line, item_id = unknown[0]
        raise InputError(
            f"{place(path, line)}: item {item_id!r} is not in {listed_in.name} "
            f"(interactions with unlisted items: {len(unknown):,}); list it there or remove them"
        )


def in_order(path: Path, events: Sequence[tuple[int, RawInteraction]]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The frame of `Dataset.interactions`, and what had to be decided for it.

    Within a user the order is that of the positions where given, otherwise of time, then of the file.
    Of several interactions of a user with one item the first in that order is kept.

    Args:
        path: The file the events come from, for messages.
        events: Interactions with their line numbers, in the file's order; not empty.

    Raises:
        InputError: If some events have a position (or, without positions, a timestamp) and others have none.
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
                f"{place(path, int(lines[~given][0]))}: field {key!r} is missing here and given elsewhere, so the "
                "order of interactions is unknown; give it everywhere or nowhere"
            )
    # Ascending line numbers are the file's order; the multi-key sort alone does not promise stability.
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
