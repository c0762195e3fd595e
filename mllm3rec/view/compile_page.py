"""The page of a compile: trials as they come, instructions and their changes, users won and lost, and a stop button."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from functools import partial
from typing import Any

from nicegui import ui
from nicegui.elements.mixins.text_element import TextElement

from evaluate.stats.intervals import bootstrap_mean
from mllm3rec.view.compile_state import ViewedCompile, against_original
from mllm3rec.view.elements import (
    Cell,
    Place,
    button,
    details,
    figure,
    in_dollars,
    link,
    table,
    tag,
    text_diff,
    with_interval,
)
from mllm3rec.view.frame import Watched
from mllm3rec.view.library import Library
from mllm3rec.view.process import interrupt
from optimize.candidates import ORIGINAL, Candidates
from optimize.compile_figures import by_cost, by_trial, settings_of
from optimize.compile_report import PHASE_NAMES
from optimize.objective import UserScore
from optimize.search import Attempt
from programs.runtime.errors import InputError


async def compile_page(library: Library, place: Place) -> Watched:
    """Make the page."""
    viewed = library.compile_named(place.one("folder"))
    attempts = await asyncio.to_thread(viewed.attempts)
    tag("h1", f"Compile {viewed.name}")
    _status(viewed)
    _spent(viewed)
    if not attempts:
        tag("p", "No trial yet. Only searches with Optuna (`--optimizer study`) show trials here.", role="status")
        return lambda: viewed.state_of_files
    manifest = viewed.manifest
    winner = None if manifest is None else manifest.trial
    complete = [one for one in attempts if one.scores]
    if complete:
        figure(by_trial(complete, winner), partial(_open_trial, place))
        unit = "usd" if all(one.usd is not None for attempt in complete for one in attempt.scores) else "tokens"
        figure(by_cost(complete, unit, winner), partial(_open_trial, place))
        _trials(place, attempts, unit, winner)
    chosen = place.number("trial", winner if winner is not None else attempts[-1].number)
    _trial(viewed, attempts, chosen)
    candidates = viewed.candidates()
    if candidates is not None:
        _lineage(candidates, attempts)
    _dashboard(viewed)
    return lambda: viewed.state_of_files


def _status(viewed: ViewedCompile) -> None:
    process, manifest = viewed.process, viewed.manifest
    with tag("div", classes="bar"):
        if process is not None:
            tag("span", f"running, process {process}", "badge good")
            said = tag("span", "", "soft", role="status")
            with tag("span") as place_of_button:
                button("Stop it…", partial(_ask_to_stop, viewed, place_of_button, said), "danger")
        elif manifest is None:
            tag("span", "stopped; the same command goes on from here", "badge bad")
        else:
            tag("span", "finished", "badge")
    if manifest is not None:
        gain = manifest.verdict.difference["score"]
        verdict = f"Trial {manifest.trial} won. On {gain.n} held-out users it is {manifest.verdict.judgement}"
        tag("p", f"{verdict} than the uncompiled program: the score differs by {with_interval(gain)}.")


def _ask_to_stop(viewed: ViewedCompile, place: TextElement, said: TextElement) -> None:
    place.clear()
    with place:
        button("Stop: Ctrl-C to its process", partial(_stop, viewed, place, said), "danger")
        button("Go on", partial(_go_on, viewed, place, said), "plain")


def _go_on(viewed: ViewedCompile, place: TextElement, said: TextElement) -> None:
    place.clear()
    with place:
        button("Stop it…", partial(_ask_to_stop, viewed, place, said), "danger")


def _stop(viewed: ViewedCompile, place: TextElement, said: TextElement) -> None:
    try:
        process = interrupt(viewed.search)
        said.text = f"Ctrl-C was sent to process {process}; all answers are kept, the same command goes on from there."
        place.clear()
    except (InputError, OSError) as error:
        said.text = str(error)


def _spent(viewed: ViewedCompile) -> None:
    rows: list[list[Cell]] = [
        [
            PHASE_NAMES.get(phase, phase),
            f"{usage.calls:,}",
            f"{usage.cache_hits:,}",
            f"{usage.tokens_in:,}",
            f"{usage.tokens_out:,}",
            in_dollars(usage),
        ]
        for phase, usage in viewed.spent().items()
    ]
    if rows:
        heads = ("phase", "calls", "cache hits", "tokens in", "tokens out", "dollars")
        table("Spent so far", heads, rows, numbers=range(1, 6))


def _open_trial(place: Place, event: Any) -> None:
    for point in event.args.get("points", ()):
        found = str(point.get("hovertext", "")).partition("trial: ")[2].partition("<br>")[0]
        if found.isdigit():
            ui.navigate.to(place.here(trial=found) + "#trial")
            return


def _trials(place: Place, attempts: Sequence[Attempt], unit: str, winner: int | None) -> None:
    rows: list[list[Cell]] = []
    for one in attempts:
        name = f"{one.number}{' (winner)' if one.number == winner else ''}"
        scores, settings = [score.score for score in one.scores], settings_of(one.configuration)
        cost = f"${one.cost(unit):.6f}" if unit == "usd" else f"{one.cost(unit):,.0f}"
        rows.append(
            [
                partial(link, name, place.here(trial=one.number) + "#trial"),
                one.state.lower(),
                with_interval(bootstrap_mean(scores, seed=0)) if scores else "–",
                cost if scores else "–",
                str(len(scores)),
                "; ".join(f"{key} {value}" for key, value in settings.items() if value != ORIGINAL),
                one.error or "",
            ]
        )
    cost_head = "$ per user" if unit == "usd" else "tokens per user"
    heads = (
        "trial",
        "state",
        "score [95% interval]",
        cost_head,
        "users",
        "settings that are not the original's",
        "error",
    )
    table(f"{len(rows)} trials; trial 0 is the uncompiled program", heads, rows, numbers=(2, 3, 4))


def _trial(viewed: ViewedCompile, attempts: Sequence[Attempt], number: int) -> None:
    tag("h2", f"Trial {number} against the uncompiled program", id="trial")
    found = against_original(attempts, number)
    if found.difference is not None:
        won, lost, n = len(found.won), len(found.lost), found.difference.n
        tag("p", f"Won {won}, lost {lost} of {n} users; score {with_interval(found.difference)}, paired by user.")
    with tag("div", classes="side"):
        for name, pairs in (("won", found.won), ("lost", found.lost)):
            with tag("section"):
                _users(f"Users that trial {number} {name}", pairs)
    by_number = {one.number: one for one in attempts}
    before, after = viewed.prompts(by_number[0]), viewed.prompts(by_number[number])
    tag("h3", "Its instructions and demos")
    changed = [name for name in after if after[name] != before.get(name)]
    if not changed:
        tag("p", "The same as those of the uncompiled program.")
    for name in changed:
        old = before.get(name)
        tag("h4", name)
        if old is None or old.instructions != after[name].instructions:
            text_diff(name, "" if old is None else old.instructions, after[name].instructions)
        if old is None or old.demos != after[name].demos:
            with details(f"demos: {len(after[name].demos)}, before {0 if old is None else len(old.demos)}"):
                for demo in after[name].demos:
                    tag("pre", "\n".join(f"{key}: {value}" for key, value in demo.items()), tabindex=0)


def _users(caption: str, pairs: Sequence[tuple[UserScore, UserScore]]) -> None:
    rows: list[list[Cell]] = [
        [new.user_id, f"{old.rank} → {new.rank}", f"{old.mar_rank} → {new.mar_rank}", f"{new.score - old.score:+.3f}"]
        for old, new in pairs
    ]
    table(f"{caption}: {len(rows)}", ("user", "rank", "rank by MAR alone", "score"), rows, numbers=(1, 2, 3))


def _lineage(candidates: Candidates, attempts: Sequence[Attempt]) -> None:
    """Every instruction that was made, what it changes, and how the trials with it scored."""
    tag("h2", "Instructions: where they came from, and what they gave")
    for module, pool in candidates.modules.items():
        tag("h3", module)
        original = pool.wordings[0].instructions
        for wording in pool.wordings:
            tried = [one for one in attempts if one.configuration.wordings.get(module) == wording.name and one.scores]
            scored = f"{len(tried)} trials"
            if tried:
                mean, best = sum(one.score for one in tried) / len(tried), max(one.score for one in tried)
                scored += f", mean score {mean:.3f}, best {best:.3f}"
            with details(f"{wording.name} · {scored}"):
                for predictor, text in (original | wording.instructions).items():
                    tag("h4", predictor)
                    if text == original.get(predictor):
                        tag("pre", text, tabindex=0)
                    else:
                        text_diff(f"{wording.name} of {predictor}", original.get(predictor, ""), text)


def _dashboard(viewed: ViewedCompile) -> None:
    tag("h2", "The same study in optuna-dashboard")
    tag(
        "p",
        "Parameters, importances and the history of all trials; it only reads the study, also while the compile runs.",
    )
    tag("pre", f"pip install optuna-dashboard\noptuna-dashboard {shlex.quote(f'sqlite:///{viewed.study}')}", tabindex=0)
