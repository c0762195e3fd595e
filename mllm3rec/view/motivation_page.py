"""The page of a motivation: how many users of a run have each dimension, and who has the chosen one."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import NamedTuple

from pydantic_core import to_json

from mllm3rec.view.elements import Cell, Place, link, pager, table, tag
from mllm3rec.view.frame import Watched
from mllm3rec.view.library import Library
from mllm3rec.view.run_facts import ViewedRun

HOLDERS_A_PAGE = 100


class _Holder(NamedTuple):
    user: str
    strength: str
    description: str


async def motivation_page(library: Library, place: Place) -> Watched:
    """Make the page."""
    run, dimension = library.run(place.one("run")), place.one("dimension")
    tag("h1", f"Motivations in {run.name}" if not dimension else f"Motivation “{dimension}” in {run.name}")
    if dimension:
        holders = await asyncio.to_thread(_holders, run, dimension)
        page = max(1, place.number("page", 1))
        rows: list[list[Cell]] = [
            [partial(link, one.user, place.to("/user", run=run.name, user=one.user)), one.strength, one.description]
            for one in holders[(page - 1) * HOLDERS_A_PAGE : page * HOLDERS_A_PAGE]
        ]
        table(f"{len(holders):,} motivations of this dimension", ("user", "strength", "description"), rows)
        pager(place, page, HOLDERS_A_PAGE, len(holders))
    tag("h2", "All dimensions")
    counts = await asyncio.to_thread(_counts, run)
    if not counts:
        tag("p", "The rows of this run have no profiles.")
        return None
    dimensions: list[list[Cell]] = [
        [partial(link, name, place.here(dimension=name, page="")), f"{users:,}"] for name, users in counts.most_common()
    ]
    table("Users by dimension", ("dimension", "users"), dimensions, numbers=(1,))
    return None


def _holders(run: ViewedRun, dimension: str) -> list[_Holder]:
    run.rows.extend()
    return [
        _Holder(row.user_id, one.strength, one.description)
        for row in run.rows.containing(b'"dimension":' + to_json(dimension))
        for one in (() if row.profile is None else row.profile.motivations)
        if one.dimension == dimension
    ]


def _counts(run: ViewedRun) -> Counter[str]:
    run.rows.extend()
    counts: Counter[str] = Counter()
    for row in run.rows.containing(b'"dimension":'):
        if row.profile is not None:
            counts.update({one.dimension for one in row.profile.motivations})
    return counts
