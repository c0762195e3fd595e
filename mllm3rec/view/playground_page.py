"""The playground: profile, recommendations and reasons for any history, on the press of a button."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, get_args

from nicegui.elements.mixins.text_element import TextElement

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from mllm3rec.api.program import Program, load_artifact, program
from mllm3rec.api.recommendation import Recommendations
from mllm3rec.view.elements import (
    Cell,
    Place,
    TypedText,
    button,
    choice,
    field,
    form,
    hidden_fields,
    in_dollars,
    submit,
    table,
    tag,
)
from mllm3rec.view.frame import Watched
from mllm3rec.view.library import Library
from programs.lm.backends import UnparsableError
from programs.mope import HISTORY_ITEMS
from programs.program import PROGRAMS, WITHOUT_MODEL
from programs.runtime.errors import BudgetExceededError, InputError, one_line
from signatures.types import Motivation, Profile, Strength

DEMO = "demo"
MOST_CALLS_A_PRESS = 60
"""Default number of model calls that a press of a button may make."""

_STRENGTHS = get_args(Strength)


async def playground_page(library: Library, place: Place) -> Watched:
    """Make the page."""
    tag("h1", "Playground")
    artifacts, sources = library.artifacts(), list(_sources(library))
    with form("/playground", "program and data"):
        hidden_fields(place, ("data", "artifact", "program", "model", "calls", "k", "user", "history"))
        choice("Data", "data", [(one, one) for one in sources], place.one("data", sources[0]))
        none = ("", "none: the program")
        options = [none, *((sha256, f"{found.name} ({sha256[:8]})") for sha256, found in artifacts.items())]
        choice("Artifact", "artifact", options, place.one("artifact"))
        names = [(name, name) for name in PROGRAMS if name not in WITHOUT_MODEL]
        choice("Program", "program", names, place.one("program", "listwise"))
        field("Model (empty: the artifact's own)", "model", place.one("model"))
        field("Calls a press may make", "calls", place.one("calls", str(MOST_CALLS_A_PRESS)), "number", min=0)
        field("Items", "k", place.one("k", "5"), "number", min=1, max=20)
        field("User of the data", "user", place.one("user"))
        lines = "History, instead of a user: one item id or free text a line, oldest first"
        history = TypedText(lines, place.one("history"), "textarea", "history")
        submit("Set")
    tag("p", "A model is asked only when you press one of these buttons; histories go to that model.", "soft")
    edited = TypedText("Profile: dimension | strength | description | purchases, one a line", "", "textarea")
    bar = tag("div", classes="bar")
    status = tag("p", "", "soft", role="status")
    desk = _Desk(library, place, history, edited, status, tag("div"))
    with bar:
        button("Make the profile", desk.profile)
        button("Recommend", desk.recommend)
        button("Rank again with this profile", desk.rank_again)
    return None


def _sources(library: Library) -> dict[str, dict[str, str]]:
    """Where the data of the runs came from, with the columns it was read by; the demo store is always there."""
    found = [library.cases(sha256) for sha256 in library.contents.cases]
    return {one.protocol.source: one.protocol.columns for one in found if one is not None} | {DEMO: {}}


def chosen_data(library: Library, source: str) -> Dataset:
    """The data of a source, read as it was for the runs.

    Raises:
        InputError: if it is not that of a run in the folder, or cannot be read.
    """
    sources = _sources(library)
    if source not in sources:
        raise InputError("this data is not that of a run in the folder; choose it in the list")
    return load_dataset(source, sources[source])


class _Desk:
    """What the buttons do, one at a time."""

    def __init__(
        self,
        library: Library,
        place: Place,
        history: TypedText,
        edited: TypedText,
        status: TextElement,
        result: TextElement,
    ) -> None:
        self.library, self.place = library, place
        self.history, self.edited, self.status, self.result = history, edited, status, result
        self.busy = False

    async def profile(self) -> None:
        """Ask MOPE alone."""

        def work(made: Program) -> Profile:
            return made.profile(**self._who())

        await self._done("Asking for the profile…", work, self._show_profile)

    async def recommend(self) -> None:
        """Profile, recommendations and reasons."""
        await self._done("Asking for recommendations…", partial(self._recommended, None), self._show)

    async def rank_again(self) -> None:
        """Recommendations for the profile as it stands in the field."""
        try:
            profile = profile_of_text(self.edited.value)
        except InputError as error:
            self.status.text = str(error)
            return
        await self._done("Ranking with this profile…", partial(self._recommended, profile), self._show)

    def _recommended(self, profile: Profile | None, made: Program) -> Recommendations:
        k = min(20, max(1, self.place.number("k", 5)))
        return made.recommend(**self._who(), k=k, candidates=max(15, k), profile=profile)

    def _who(self) -> dict[str, Any]:
        lines = [line.strip() for line in self.history.value.splitlines() if line.strip()]
        if lines:
            return {"history": lines}
        if self.place.one("user"):
            return {"user": self.place.one("user")}
        raise InputError("write a history, one item a line, or set a user of the data")

    async def _done(self, doing: str, work: Callable[[Program], Any], show: Callable[[Any], None]) -> None:
        if self.busy:
            return
        self.busy, self.status.text = True, doing
        try:
            made, found = await asyncio.to_thread(self._worked, work)
            spent = made.ledger.total()
            self.status.text = f"{spent.calls} calls, {spent.cache_hits} cache hits, {in_dollars(spent)}"
            self.result.clear()
            with self.result:
                show(found)
        except (InputError, ImportError, OSError, UnparsableError, BudgetExceededError) as error:
            self.status.text = one_line(error)
        except Exception as error:  # a model's server may fail in any way
            self.status.text = f"failed: {one_line(error)}"
        finally:
            self.busy = False

    def _worked(self, work: Callable[[Program], Any]) -> tuple[Program, Any]:
        made = self._program()
        return made, work(made)

    def _program(self) -> Program:
        dataset = chosen_data(self.library, self.place.one("data", DEMO))
        calls = max(0, self.place.number("calls", MOST_CALLS_A_PRESS))
        model, sealed = self.place.one("model") or None, self.place.one("artifact")
        if sealed:
            found = self.library.artifacts().get(sealed)
            if found is None:
                raise InputError("this artifact is not in the folder any more; choose another one")
            return load_artifact(found.path, dataset, model=model, max_calls=calls)
        return program(self.place.one("program", "listwise"), dataset, model=model, max_calls=calls)

    def _show_profile(self, profile: Profile) -> None:
        tag("h2", "Profile")
        self.edited.write(text_of_profile(profile))
        _motivations(profile, ())

    def _show(self, found: Recommendations) -> None:
        if found.error:
            tag("p", found.error, "error")
        for warning in found.warnings:
            tag("p", warning, "error")
        if found.profile is not None:
            tag("h2", "Profile")
            self.edited.write(text_of_profile(found.profile))
            _motivations(found.profile, found.evidence)
        tag("h2", "Recommendations")
        rows: list[list[Cell]] = [
            [
                str(rank),
                f"{item.title} ({item.item_id})",
                f"{item.score:.3f}",
                str(item.prior_rank or "–"),
                str(item.mar_rank or "–"),
                "; ".join(item.traits) or "–",
                (item.reason or "–") + ("" if not item.reason or item.reason_checked else " (refused by the judge)"),
            ]
            for rank, item in enumerate(found, 1)
        ]
        heads = ("rank", "item", "score", "rank by the prior", "rank by MAR", "traits", "reason")
        table(f"{len(rows)} items for {found.user}", heads, rows, numbers=(0, 2, 3, 4))


def _motivations(profile: Profile, evidence: Sequence[Sequence[str]]) -> None:
    with tag("ul", classes="plain"):
        for number, one in enumerate(profile.motivations):
            with tag("li"):
                tag("span", f"{one.dimension} ({one.strength}): {one.description}")
                if number < len(evidence):
                    tag("div", f"because of {', '.join(evidence[number])}", "soft")


def text_of_profile(profile: Profile) -> str:
    """A profile as lines that can be edited."""
    return "\n".join(
        f"{one.dimension} | {one.strength} | {one.description} | {','.join(map(str, one.evidence))}"
        for one in profile.motivations
    )


def profile_of_text(text: str) -> Profile:
    """The profile in edited lines.

    Raises:
        InputError: naming the line that is not a motivation.

    >>> profile_of_text("value | strong | saves | 1,2").motivations[0].evidence
    (1, 2)
    """
    motivations = []
    for number, line in enumerate(filter(str.strip, text.splitlines()), start=1):
        parts = [part.strip() for part in line.split("|")]
        numbers = parts[3].replace(",", " ").split() if len(parts) == 4 else []
        if len(parts) != 4 or parts[1] not in _STRENGTHS or not all(part.isdigit() for part in numbers):
            raise InputError(
                f"line {number} of the profile: write dimension | {' or '.join(_STRENGTHS)} | description | numbers of "
                "purchases with commas"
            )
        evidence = tuple(n for part in numbers if 1 <= (n := int(part)) <= HISTORY_ITEMS)
        motivations.append(
            Motivation(dimension=parts[0], strength=parts[1], description=parts[2], evidence=evidence)  # type: ignore[arg-type]
        )
    if not motivations:
        raise InputError("the profile is empty: make one first, or write a line")
    return Profile(motivations=tuple(motivations))
