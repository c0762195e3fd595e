"""The page of an item: what it is, its traits, and to whom a run recommended it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic_core import to_json

from mllm3rec.view.elements import Cell, Place, link, pager, table, tag
from mllm3rec.view.frame import Watched
from mllm3rec.view.library import Library
from mllm3rec.view.run_facts import ViewedRun
from programs.runtime.errors import InputError, counted
from signatures.types import Item, Traits

RECOMMENDED = 5
"""Ranks that count as recommended: the cutoff of HR@5."""

ITEMS_USERS_A_PAGE = 100


@dataclass
class _Shown:
    """What a run's rows say about an item.

    Attributes:
        listed: Number of users with the item among their candidates.
        to: User and rank of those it was recommended to.
        traits: Different sets of traits, as MOTE made them.
    """

    listed: int = 0
    to: list[tuple[str, int]] = field(default_factory=list)
    traits: list[Traits] = field(default_factory=list)


async def item_page(library: Library, place: Place) -> Watched:
    """Make the page."""
    item_id, run = place.one("item"), library.run(place.one("run"))
    if not item_id:
        raise InputError("this address names no item; choose one in the list of a user")
    item = await asyncio.to_thread(_item, run, item_id)
    tag("h1", item.title if item is not None and item.title else f"Item {item_id}")
    if item is not None:
        _facts(item)
    else:
        tag("p", f"The catalogue of {run.name} was not found, so only what its rows say is shown.", "soft")
    shown = await asyncio.to_thread(_shown, run, item_id)
    tag("h2", f"Traits in {run.name}")
    if not shown.traits:
        tag("p", "No traits.")
    for traits in shown.traits:
        with tag("ul", classes="plain"):
            for phrase in traits.all_phrases:
                tag("li", phrase)
            for dropped in traits.dropped:
                tag("li", f"refused: {dropped}", "soft")
    _users(place, run, shown)
    return None


def _item(run: ViewedRun, item_id: str) -> Item | None:
    try:
        return None if run.cases is None else run.cases.dataset.items.get(item_id)
    except InputError:
        return None


def _facts(item: Item) -> None:
    facts: list[Sequence[Cell]] = [
        ("id", item.item_id),
        ("brand", item.brand or "–"),
        ("price", "–" if item.price is None else f"{item.price:g}"),
        ("categories", "; ".join(" > ".join(one) for one in item.categories) or "–"),
        ("description", item.description or item.keywords or "–"),
    ]
    table("The item in the catalogue", ("fact", "value"), facts)


def _shown(run: ViewedRun, item_id: str) -> _Shown:
    run.rows.extend()
    found = _Shown()
    for row in run.rows.containing(to_json(item_id)):
        if item_id in row.order:
            found.listed += 1
            if (rank := row.order.index(item_id) + 1) <= RECOMMENDED:
                found.to.append((row.user_id, rank))
        for traits in row.traits:
            if traits.item_id == item_id and traits not in found.traits:
                found.traits.append(traits)
    return found


def _users(place: Place, run: ViewedRun, shown: _Shown) -> None:
    tag("h2", "Recommended to")
    listed = f"of the {counted(shown.listed, 'user')} with it in their list"
    tag("p", f"In the first {RECOMMENDED} places for {len(shown.to):,} {listed}.")
    page = max(1, place.number("page", 1))
    part = shown.to[(page - 1) * ITEMS_USERS_A_PAGE : page * ITEMS_USERS_A_PAGE]
    rows: list[list[Cell]] = [
        [lambda user=user: link(user, place.to("/user", run=run.name, user=user)), str(rank)]  # type: ignore[misc]
        for user, rank in part
    ]
    table("Users, in the order of the run", ("user", "rank"), rows, numbers=(1,))
    pager(place, page, ITEMS_USERS_A_PAGE, len(shown.to))
