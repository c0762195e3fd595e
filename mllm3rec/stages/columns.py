"""Columns of the stages' input and output, as Arrow schemas; names and types of the output do not change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa

from signatures.rows import Usage
from signatures.types import Interaction, Item

OK, UNPARSABLE, REFUSED, FAILED = "ok", "unparsable", "refused", "failed"
"""Values of `status`: answered; no answer could be read; the provider refuses the text; the calls failed, so that a
resumed job tries again."""

_ITEM = [
    pa.field("item_id", pa.string(), nullable=False),
    pa.field("title", pa.string()),
    pa.field("description", pa.string()),
    pa.field("categories", pa.list_(pa.list_(pa.string()))),
    pa.field("brand", pa.string()),
    pa.field("price", pa.float64()),
    pa.field("keywords", pa.string()),
]

ITEMS = pa.schema(_ITEM)
"""Input of `distill`: one row an item."""

USERS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field(
            "history",
            pa.list_(pa.struct([*_ITEM, pa.field("rating", pa.float64()), pa.field("timestamp", pa.int64())])),
        ),
        pa.field("metadata", pa.list_(pa.struct([("name", pa.string()), ("value", pa.string())]))),
    ]
)
"""Input of `profile`: one row a user, with the texts of the last purchases, oldest first."""

USER_IDS = pa.schema([pa.field("user_id", pa.string(), nullable=False)])
"""Input of `recommend`: one row a user of the dataset."""

_OUTCOME = [
    pa.field("status", pa.string(), nullable=False),
    pa.field("error", pa.string()),
    pa.field("calls", pa.int64()),
    pa.field("cache_hits", pa.int64()),
    pa.field("tokens_in", pa.int64()),
    pa.field("tokens_out", pa.int64()),
    pa.field("usd", pa.float64()),
    pa.field("seconds", pa.float64()),
]

TRAIT_ROWS = pa.schema(
    [
        pa.field("item_id", pa.string(), nullable=False),
        pa.field("traits", pa.list_(pa.string())),
        pa.field("occasions", pa.list_(pa.string())),
        pa.field("users", pa.list_(pa.string())),
        pa.field("dropped", pa.list_(pa.string())),
        *_OUTCOME,
    ]
)
"""Output of `distill`: the traits, phrases that validation refused, and what the row cost."""

_EVIDENCE = pa.field("evidence", pa.list_(pa.int64()))

PROFILE_ROWS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field(
            "motivations",
            pa.list_(
                pa.struct(
                    [("dimension", pa.string()), ("description", pa.string()), ("strength", pa.string()), _EVIDENCE]
                )
            ),
        ),
        pa.field("needs", pa.list_(pa.struct([("phrase", pa.string()), _EVIDENCE]))),
        *_OUTCOME,
    ]
)
"""Output of `profile`."""

RECOMMENDATION_ROWS = pa.schema(
    [
        pa.field("user_id", pa.string(), nullable=False),
        pa.field(
            "items",
            pa.list_(
                pa.struct(
                    [
                        ("item_id", pa.string()),
                        ("title", pa.string()),
                        ("score", pa.float64()),
                        ("prior_rank", pa.int64()),
                        ("mar_rank", pa.int64()),
                        ("traits", pa.list_(pa.string())),
                        ("reason", pa.string()),
                        ("reason_checked", pa.bool_()),
                    ]
                )
            ),
        ),
        *_OUTCOME,
    ]
)
"""Output of `recommend`: the items of a user, best first."""

OUTPUTS = {"distill": TRAIT_ROWS, "profile": PROFILE_ROWS, "recommend": RECOMMENDATION_ROWS}
"""Output by task."""


def item_row(item: Item) -> dict[str, Any]:
    """An item as a row of `ITEMS`."""
    return item.model_dump()


def item_of(row: dict[str, Any]) -> Item:
    """The item of a row; columns that are missing or null are not known."""
    known = {name: row[name] for name in ITEMS.names if row.get(name) is not None}
    return Item.model_validate(known)


def user_row(user_id: str, purchases: Sequence[tuple[Item, Interaction]], metadata: dict[str, str]) -> dict[str, Any]:
    """A user as a row of `USERS`."""
    history = [item_row(item) | {"rating": event.rating, "timestamp": event.timestamp} for item, event in purchases]
    facts = [{"name": name, "value": value} for name, value in metadata.items()]
    return {"user_id": user_id, "history": history, "metadata": facts}


def purchases_of(row: dict[str, Any]) -> list[tuple[Item, Interaction]]:
    """The history of a row of `USERS`."""
    return [
        (item_of(one), Interaction(item_id=one["item_id"], rating=one.get("rating"), timestamp=one.get("timestamp")))
        for one in row["history"] or ()
    ]


def metadata_of(row: dict[str, Any]) -> dict[str, str]:
    """The facts about the user of a row of `USERS`."""
    return {one["name"]: one["value"] for one in row.get("metadata") or ()}


def outcome(usage: Usage, status: str = OK, error: str | None = None) -> dict[str, Any]:
    """The columns that every output has."""
    return {
        "status": status,
        "error": error,
        "calls": usage.calls,
        "cache_hits": usage.cache_hits,
        "tokens_in": usage.tokens_in,
        "tokens_out": usage.tokens_out,
        "usd": usage.usd,
        "seconds": round(usage.seconds, 4),
    }


def batches(rows: Iterable[dict[str, Any]], schema: pa.Schema, size: int) -> Iterable[pa.RecordBatch]:
    """Rows as record batches of at most `size` rows."""
    waiting: list[dict[str, Any]] = []
    for row in rows:
        waiting.append(row)
        if len(waiting) == size:
            yield pa.RecordBatch.from_pylist(waiting, schema)
            waiting = []
    if waiting:
        yield pa.RecordBatch.from_pylist(waiting, schema)
