"""The page of one user: history, profile, candidates, reasons and every call; several runs side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic_core import to_json

from evaluate.data.dataset import Dataset
from mllm3rec.view.calls import UserCall, UserCalls, calls_of_user
from mllm3rec.view.elements import Cell, Place, details, dollars_of, in_dollars, link, table, tag, text_diff
from mllm3rec.view.frame import Watched
from mllm3rec.view.library import Library
from mllm3rec.view.run_facts import ViewedRun
from programs.mope import HISTORY_ITEMS
from programs.runtime.errors import InputError, quoted
from signatures.rows import Case, Ranking, Status
from signatures.types import Item, Motivation

MOST_RUNS = 4
_PARTS = ("prior", "mar", "fused")


@dataclass(frozen=True)
class _Seen:
    """One run's view of the user.

    Attributes:
        row: None while the user is not ranked.
    """

    run: ViewedRun
    row: Ranking | None
    case: Case | None
    dataset: Dataset | None

    def title(self, item_id: str) -> str:
        item = None if self.dataset is None else self.dataset.items.get(item_id)
        return item_id if item is None else item.title or item.keywords or item_id


async def user_page(library: Library, place: Place) -> Watched:
    """Make the page."""
    user, names = place.one("user"), place.several("run")[:MOST_RUNS]
    if not user or not names:
        raise InputError("this address names no run or no user; choose a user in the list of a run")
    seen = [await asyncio.to_thread(_seen, library.run(name), user) for name in names]
    tag("h1", f"User {user}")
    if all(one.row is None for one in seen):
        raise InputError(f"user {quoted(user)} has no row in {', '.join(names)}; look for another one")
    with tag("p"):
        link("All users of these runs", place.to("/compare", run=names, metric=place.one("metric")))
    problem = next((one for one in seen if one.dataset is None), None)
    if problem is not None:
        tag("p", await asyncio.to_thread(_why_without_data, problem.run), "soft")
    _history(place, next((one for one in seen if one.case is not None), seen[0]))
    with tag("div", classes="side"):
        for place_in_list, one in enumerate(seen):
            other = None if len(seen) < 2 else seen[1 if place_in_list == 0 else 0]
            with tag("section", aria_label=one.run.name):
                _ranked(place, one, other)
    tag("h2", "Calls")
    with tag("div", classes="side"):
        await _calls(library, seen)
    return partial(_state, seen, user)


def _state(seen: Sequence[_Seen], user: str) -> object:
    rows = [one.run.rows.find(user) for one in seen]
    return [None if row is None else row.model_dump_json() for row in rows]


def _seen(viewed: ViewedRun, user: str) -> _Seen:
    row = viewed.rows.find(user)
    if viewed.cases is None:
        return _Seen(viewed, row, None, None)
    try:
        dataset = viewed.cases.dataset
    except InputError:
        dataset = None
    return _Seen(viewed, row, viewed.cases.find(user), dataset)


def _why_without_data(viewed: ViewedRun) -> str:
    if viewed.cases is None:
        return (
            "The cases file of this run was not found below the viewed folder, so history, target and titles are not "
            "shown; name the file with --cases."
        )
    try:
        viewed.cases.dataset  # noqa: B018 - raises what is wrong
    except InputError as error:
        return f"Titles are not shown: {error}"
    return ""


def _history(place: Place, seen: _Seen) -> None:
    tag("h2", "History")
    if seen.case is None:
        tag("p", "Not known without the cases file.")
        return
    shown = len(seen.case.history) - HISTORY_ITEMS
    rows: list[list[Cell]] = []
    for number, event in enumerate(seen.case.history):
        rows.append(
            [
                str(number - max(0, shown) + 1) if number >= shown else "not in prompts",
                partial(_item_link, place, seen, event.item_id),
                _category(seen, event.item_id),
                "–" if event.rating is None else f"{event.rating:g}",
            ]
        )
    caption = f"{len(rows)} purchases, oldest first, numbered as in the evidence of motivations"
    if seen.case.metadata:
        caption += "; " + ", ".join(f"{name} {value}" for name, value in seen.case.metadata.items())
    table(caption, ("number", "item", "category", "rating"), rows, numbers=(3,))


def _category(seen: _Seen, item_id: str) -> str:
    item: Item | None = None if seen.dataset is None else seen.dataset.items.get(item_id)
    deepest: tuple[str, ...] = () if item is None else max(item.categories, key=len, default=())
    return " > ".join(deepest) or "–"


def _item_link(place: Place, seen: _Seen, item_id: str) -> None:
    link(seen.title(item_id), place.to("/item", run=seen.run.name, item=item_id))


def _ranked(place: Place, seen: _Seen, other: _Seen | None) -> None:
    tag("h2", seen.run.name)
    row = seen.row
    if row is None:
        tag("p", "This run has not ranked the user yet.")
        return
    with tag("p"):
        tag("span", row.status.value, "badge" if row.status is Status.OK else "badge bad")
        if seen.case is not None and seen.case.target in row.order:
            rank = row.order.index(seen.case.target) + 1
            tag("span", f"target at rank {rank} of {len(row.order)}", "badge good" if rank <= 5 else "badge")
        if not row.asked:
            tag("span", "models not asked", "badge")
        if row.score_source:
            tag("span", f"scores from {row.score_source}", "badge")
        tag("span", f"{row.usage.calls} calls, {row.usage.cache_hits} cache hits, {in_dollars(row.usage)}", "badge")
    if row.error:
        tag("p", row.error, "error")
    _profile(place, seen, row, None if other is None else other.row)
    _candidates(place, seen, row, None if other is None else other.row)


def _profile(place: Place, seen: _Seen, row: Ranking, other: Ranking | None) -> None:
    tag("h3", "Profile")
    if row.profile is None:
        tag("p", "No profile.")
        return
    theirs = set() if other is None or other.profile is None else {_said(m) for m in other.profile.motivations}
    with tag("ul", classes="plain"):
        for motivation in row.profile.motivations:
            differs = other is not None and _said(motivation) not in theirs
            with tag("li"):
                address = place.to("/motivation", run=seen.run.name, dimension=motivation.dimension)
                link(motivation.dimension, address)
                tag("span", f" ({motivation.strength}): ")
                tag("span", motivation.description, "differs" if differs else "")
                if differs:
                    tag("span", " only in this run", "soft")
                tag("div", f"because of {_evidence(seen, motivation.evidence)}", "soft")
        for need in row.profile.needs:
            with tag("li"):
                tag("span", f"may want next: {need.phrase}")
                tag("div", f"because of {_evidence(seen, need.evidence)}", "soft")


def _said(motivation: Motivation) -> tuple[str, str]:
    return motivation.dimension, motivation.description


def _evidence(seen: _Seen, numbers: Sequence[int]) -> str:
    if seen.case is None:
        return ", ".join(f"purchase {number}" for number in numbers)
    shown = seen.case.item_ids[-HISTORY_ITEMS:]
    return ", ".join(f"{n} {seen.title(shown[n - 1])}" for n in numbers if 1 <= n <= len(shown)) or "nothing"


def _candidates(place: Place, seen: _Seen, row: Ranking, other: Ranking | None) -> None:
    tag("h3", "Candidates")
    parts = [name for name in _PARTS if name in row.scores] or list(row.scores)
    traits = {one.item_id: one.all_phrases for one in row.traits}
    reasons = {one.item_id: one for one in row.rationales}
    elsewhere = {} if other is None else {item: rank for rank, item in enumerate(other.order, 1)}
    index = {} if seen.case is None else {item: i for i, item in enumerate(seen.case.candidates)}
    rows: list[list[Cell]] = []
    for rank, item_id in enumerate(row.order, 1):
        cells: list[Cell] = [str(rank)]
        if other is not None:
            there = elsewhere.get(item_id)
            cells.append(partial(tag, "span", there or "–", "differs" if there != rank else ""))
        cells.append(partial(_candidate, place, seen, item_id))
        cells += [
            f"{row.scores[name][index[item_id]]:.3f}"
            if item_id in index and len(row.scores[name]) > index[item_id]
            else "–"
            for name in parts
        ]
        cells.append("; ".join(traits.get(item_id, ())) or "–")
        cells.append(partial(_reason, reasons.get(item_id)))
        rows.append(cells)
    columns = ["rank", *(["other's"] if other is not None else []), "item", *parts, "traits", "reason and verdict"]
    first = 2 if other is not None else 1
    numbers = [*range(first), *range(first + 1, first + 1 + len(parts))]
    table(f"{len(rows)} candidates of {seen.run.name}, best first", columns, rows, numbers)


def _candidate(place: Place, seen: _Seen, item_id: str) -> None:
    _item_link(place, seen, item_id)
    if seen.case is not None and item_id == seen.case.target:
        tag("span", " target", "badge good")


def _reason(reason: Any) -> None:
    if reason is None:
        tag("span", "–")
        return
    tag("span", reason.text)
    word, looks = ("faithful", "good") if reason.verdict.faithful else ("refused", "bad")
    tag("span", word, f"badge {looks}")
    tag("span", reason.verdict.why, "soft")


async def _calls(library: Library, seen: Sequence[_Seen]) -> None:
    artifacts = {sha256: found.path for sha256, found in (await asyncio.to_thread(library.artifacts)).items()}
    found = []
    for one in seen:
        if one.row is None or one.run.cases is None:
            found.append(UserCalls(missing="Not kept without the cases file: name it with --cases."))
            continue
        work = partial(calls_of_user, one.run.manifest, one.run.cases, one.row, one.run.ledger, artifacts)
        found.append(await asyncio.to_thread(work))
    for place, (one, calls) in enumerate(zip(seen, found, strict=True)):
        other = found[1 if place == 0 else 0].calls if len(found) > 1 else ()
        with tag("section", aria_label=f"calls of {one.run.name}"):
            _calls_of(one, calls, other)


def _calls_of(seen: _Seen, calls: UserCalls, other: Sequence[UserCall]) -> None:
    tag("h3", seen.run.name)
    if calls.missing:
        tag("p", calls.missing, "soft")
    if calls.same is False:
        tag(
            "p",
            "The kept answers give another order than the journal: some of them were asked for again since this run.",
            "error",
        )
    prompts = {_whole(call) for call in other}
    places: dict[str, int] = {}
    for call in calls.calls:
        number = places[call.role] = places.get(call.role, 0) + 1
        twins = [one for one in other if one.role == call.role]
        twin = twins[number - 1] if call.role in ("mope", "mar") and number <= len(twins) else None
        _call(call, number, None if not other else _whole(call) in prompts, twin)


def _call(call: UserCall, number: int, shared: bool | None, twin: UserCall | None) -> None:
    recorded = next((one for one in call.recorded if not one.hit), call.recorded[0] if call.recorded else None)
    words = [f"{call.role} {number}", call.model]
    if recorded is None:
        words.append("not in the ledger of this run")
    else:
        words += [
            f"{recorded.tokens_in:,} + {recorded.tokens_out:,} tokens",
            dollars_of(recorded.usd),
            f"{recorded.seconds:.3g} s",
            "cache hit" if recorded.hit else "failed" if recorded.failed else "sent",
        ]
    if shared is not None:
        words.append("same prompt in the other run" if shared else "other prompt than in the other run")
    with details(" · ".join(words)):
        for message in call.messages:
            tag("h4", str(message.get("role", "")), "soft")
            tag("pre", _content(message.get("content")), tabindex=0)
        tag("h4", "answer", "soft")
        tag("pre", "not kept" if call.answer is None else call.answer, tabindex=0)
        tag("h4", "read as", "soft")
        if call.parsed is None:
            tag("pre", call.problem or "not kept", tabindex=0)
        else:
            tag("pre", to_json(call.parsed, indent=1, fallback=str).decode(), tabindex=0)
        if twin is not None and _whole(twin) != _whole(call):
            tag("h4", "from the other run's prompt to this one", "soft")
            text_diff(f"{call.role} {number} of {call.model}", _whole(twin), _whole(call))
        tag("p", f"{len(call.recorded)} lines in the ledger about {call.about}", "soft")


def _whole(call: UserCall) -> str:
    return "\n".join(_content(message.get("content")) for message in call.messages)


def _content(content: Any) -> str:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        return "\n".join(str(part.get("text", part)) if isinstance(part, dict) else str(part) for part in content)
    return "" if content is None else str(content)
