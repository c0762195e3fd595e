"""The page of all runs: sorted, filtered, with notes and tags, and some of them chosen to be compared."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from mllm3rec.view.elements import (
    Cell,
    Place,
    choice,
    field,
    form,
    hidden_fields,
    in_dollars,
    link,
    pager,
    submit,
    table,
    tag,
    with_interval,
)
from mllm3rec.view.frame import Watched
from mllm3rec.view.library import Library
from mllm3rec.view.notes import RunNote
from mllm3rec.view.run_facts import RunFacts
from programs.runtime.errors import counted

RUNS_A_PAGE = 100
FIRST_METRIC = "HR@5"

# The keys are in addresses that people keep.
_COLUMNS = {
    "name": "run",
    "metric": "",
    "users": "users",
    "dollars": "dollars",
    "unreadable": "unparsable",
    "state": "state",
    "ranker": "ranker",
    "cases": "cases",
    "begun": "begun",
}
_DESCENDING = ("metric", "users", "dollars", "unreadable", "begun")


@dataclass(frozen=True)
class _Line:
    """One run of the table."""

    facts: RunFacts
    cases: str
    group: str
    note: RunNote

    def has(self, words: str) -> bool:
        found = self.facts
        whole = " ".join(
            (found.name, found.ranker, self.cases, self.group, self.note.note, *self.note.tags, found.state)
        )
        return all(word in whole.lower() for word in words.lower().split())


async def runs_page(library: Library, place: Place) -> Watched:
    """Make the page."""
    lines = await asyncio.to_thread(_lines, library)
    tag("h1", "Runs")
    _groups(library, place)
    if not lines:
        tag("p", f"No run below {library.root} yet. `mllm3rec evaluate` makes one; it appears here while it runs.")
        return partial(_state, library)
    metrics = list(dict.fromkeys(name.partition("/")[0] for line in lines for name in line.facts.metrics))
    metric = place.one("metric", FIRST_METRIC if FIRST_METRIC in metrics or not metrics else metrics[0])
    tags = sorted({one for line in lines for one in line.note.tags})
    groups = sorted({line.group for line in lines if line.group})
    with form("/", "filter of the runs"):
        hidden_fields(place, ("words", "metric", "tag", "group", "page"))
        field("Words", "words", place.one("words"), "search")
        choice("Metric", "metric", [(name, name) for name in metrics], metric)
        if groups:
            choice("Belongs to", "group", [("", "anything"), *((one, one) for one in groups)], place.one("group"))
        if tags:
            choice("Tag", "tag", [("", "any"), *((one, one) for one in tags)], place.one("tag"))
        submit("Filter")
    shown = [
        line
        for line in lines
        if line.has(place.one("words"))
        and place.one("group") in ("", line.group)
        and (not place.one("tag") or place.one("tag") in line.note.tags)
    ]
    _table(place, _sorted(shown, place, metric), metric)
    return partial(_state, library)


def _lines(library: Library) -> list[_Line]:
    notes = library.notes.read()
    lines = []
    for viewed in library.runs():
        cases = "–"
        if viewed.cases is not None:
            protocol = viewed.cases.protocol
            listed = "all items" if viewed.files.ranks.exists() else f"lists of {protocol.negatives + 1}"
            cases = f"{protocol.dataset}, {protocol.setting}, {protocol.part}, {listed}"
        lines.append(_Line(viewed.facts(), cases, library.group(viewed.name), notes.get(viewed.name, RunNote())))
    return lines


def _state(library: Library) -> object:
    runs = [(viewed.name, viewed.state_of_files) for viewed in library.runs()]
    return runs, library.notes.read(), library.contents.found


def _groups(library: Library, place: Place) -> None:
    """Links to compiles, studies, comparisons and artifacts."""
    contents = library.contents
    with tag("ul", classes="plain"):
        for found in contents.of_kind("compile"):
            with tag("li"):
                tag("span", "compile", "badge")
                link(found.name, place.to("/compile", folder=found.name))
        for kind in ("study", "comparison"):
            for found in contents.of_kind("study" if kind == "study" else "comparison"):
                runs = [one.name for one in contents.of_kind("run") if library.group(one.name) == found.name]
                with tag("li"):
                    tag("span", kind, "badge")
                    link(f"{found.name}: {counted(len(runs), 'run')}", place.to("/", group=found.name))
        for sha256, found in library.artifacts().items():
            with tag("li"):
                tag("span", "artifact", "badge")
                link(f"{found.name} ({sha256[:8]})", place.to("/playground", artifact=sha256))


def _sorted(lines: Sequence[_Line], place: Place, metric: str) -> list[_Line]:
    by = place.one("sort", "name")

    def key(line: _Line) -> tuple[bool, object]:
        found, value = line.facts.metric(metric), line.facts
        values: dict[str, object] = {
            "name": value.name,
            "ranker": value.ranker,
            "cases": line.cases,
            "metric": None if found is None else found.mean,
            "users": value.users,
            "dollars": value.usage.usd,
            "unreadable": value.unparsable,
            "state": value.state,
            "begun": value.created,
        }
        return values.get(by) is not None, values.get(by) or 0 if by in _DESCENDING[:4] else values.get(by)

    known = [line for line in lines if key(line)[0]]
    ordered = sorted(known, key=lambda line: key(line)[1], reverse=place.one("order") == "down")  # type: ignore[arg-type,return-value]
    return [*ordered, *(line for line in lines if not key(line)[0])]


def _table(place: Place, lines: Sequence[_Line], metric: str) -> None:
    page = max(1, place.number("page", 1))
    shown = lines[(page - 1) * RUNS_A_PAGE : page * RUNS_A_PAGE]
    heads: list[Cell] = ["choose"]
    heads += [partial(_head, place, key, name or f"{metric} [95% interval]") for key, name in _COLUMNS.items()]
    heads.append("tags and note")
    with form("/compare", "runs to compare"):
        for name in ("theme", "metric"):
            if place.one(name):
                tag("input", type="hidden", name=name, value=place.one(name))
        submit("Compare chosen")
        with tag("div", classes="whole"):
            table(
                counted(len(lines), "run"), heads, [_row(place, line, metric) for line in shown], numbers=(2, 3, 4, 5)
            )
    pager(place, page, RUNS_A_PAGE, len(lines))


def _head(place: Place, key: str, name: str) -> None:
    by, order = place.one("sort", "name"), place.one("order")
    here = by == key
    first = "down" if key in _DESCENDING else ""
    following = ("" if order == "down" else "down") if here else first
    arrow = (" ↓" if order == "down" else " ↑") if here else ""
    link(f"{name}{arrow}", place.here(sort=key, order=following, page=""), aria_label=f"sort by {name}")


def _row(place: Place, line: _Line, metric: str) -> list[Cell]:
    facts = line.facts
    begun = "–" if facts.created is None else f"{facts.created:%Y-%m-%d %H:%M}"
    return [
        lambda: tag("input", type="checkbox", name="run", value=facts.name, aria_label=f"choose {facts.name}"),
        lambda: link(facts.name, place.to("/compare", run=facts.name, metric=metric)),
        with_interval(facts.metric(metric)),
        f"{facts.users:,}" + (f" (+{facts.unresolved} unresolved)" if facts.unresolved else ""),
        in_dollars(facts.usage),
        f"{facts.unparsable:.1%}",
        lambda: tag("span", facts.problem or facts.state, "badge " + _LOOKS.get(facts.state, "")),
        facts.ranker,
        line.cases,
        begun,
        partial(_notes, line.note),
    ]


_LOOKS = {"running": "good", "stopped": "bad"}


def _notes(note: RunNote) -> None:
    for one in note.tags:
        tag("span", one, "badge")
    tag("span", note.note)
