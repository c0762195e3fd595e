"""Small datasets, written down as what each user bought, and protocols on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from evaluate.data.dataset import Dataset
from evaluate.data.records.interactions import INTERACTION_COLUMNS
from evaluate.protocol.protocol import EvaluationProtocol
from signatures.types import Item

Event = tuple[str, float | None] | tuple[str, float | None, int | None]
"""Item and rating, and the time if it matters."""


def make_dataset(
    events: Mapping[str, Sequence[Event]],
    unbought: Sequence[str] = (),
    metadata: dict[str, dict[str, str]] | None = None,
) -> Dataset:
    """A dataset from the events of each user, oldest first; an event without a time has its position as time."""
    table = [
        (user, event[0], event[1], event[2] if len(event) == 3 else position, position)
        for user in sorted(events)
        for position, event in enumerate(events[user])
    ]
    frame = pd.DataFrame(table, columns=list(INTERACTION_COLUMNS)).astype({"rating": float, "timestamp": "Int64"})
    ids = sorted({row[1] for row in table} | set(unbought))
    items = {item_id: Item(item_id=item_id, title=f"Thing {item_id}") for item_id in ids}
    return Dataset(name="hand", items=items, interactions=frame, metadata=metadata or {})


def protocol_for(dataset: Dataset, **choices: object) -> EvaluationProtocol:
    """A protocol on a dataset: all users, two negatives, unless `choices` say otherwise."""
    given = {"dataset": dataset.name, "source": "demo", "dataset_sha256": dataset.sha256}
    return EvaluationProtocol.model_validate(given | {"part": "all", "negatives": 2} | choices)
